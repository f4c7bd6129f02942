"""Django under Sluice: writes on a replica are refused at once, and the request is replayed on the primary."""

from sluice_core import NotPrimary, NotReplayable

from .views import primary_required

__all__ = ["NotPrimary", "NotReplayable", "primary_required"]
