"""The settings, with their defaults; and which databases are under Sluice."""

from __future__ import annotations

from typing import Dict, FrozenSet

from django.conf import settings
from django.db import connections
from sluice_core import Proxy
from sluice_core.guard import file_of

READS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


def proxy() -> Proxy:
    """``SLUICE_REPLAY``: whose proxy replays, Sluice's ("sluice", the default) or Fly.io's alone ("fly")."""
    value: Proxy = getattr(settings, "SLUICE_REPLAY", "sluice")
    return value


def local_methods() -> FrozenSet[str]:
    """
    Methods that are tried on a replica; the others are replayed before the view begins. Sluice's proxy sorts requests
    itself, so with it all are tried.
    """
    methods = getattr(settings, "SLUICE_LOCAL_METHODS", READS if proxy() == "fly" else None)
    return frozenset() if methods is None else frozenset(methods)


def read_your_writes() -> bool:
    """``SLUICE_READ_YOUR_WRITES``: by a cookie of the middleware's own. Sluice's proxy does it better, Fly.io's not."""
    return bool(getattr(settings, "SLUICE_READ_YOUR_WRITES", proxy() == "fly"))


def read_timeout_s() -> float:
    """``SLUICE_READ_TIMEOUT``: how long a read waits for a replica that is behind, in seconds."""
    return float(getattr(settings, "SLUICE_READ_TIMEOUT", 1.0))


def databases() -> Dict[str, str]:
    """The files of the databases whose ENGINE is this package's, by their aliases; none that are in memory."""
    from .backends.sqlite3.base import DatabaseWrapper

    found: Dict[str, str] = {}
    for alias in connections:
        connection = connections[alias]
        if isinstance(connection, DatabaseWrapper):
            file = file_of(connection.settings_dict["NAME"], uri=True)
            if file is not None:
                found[alias] = file
    return found
