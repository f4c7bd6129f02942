"""For views that say themselves where they run."""

from __future__ import annotations

from typing import Any, Callable, TypeVar

View = TypeVar("View", bound=Callable[..., Any])


def primary_required(view: View) -> View:
    """
    A view that always runs on the primary: on a replica the middleware has the request replayed before the view begins.
    For a GET that does something outside of the database before it writes, and for reads that must not be stale.
    """
    view.sluice_primary = True  # type: ignore[attr-defined]
    return view
