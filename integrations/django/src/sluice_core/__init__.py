"""What an application needs to know of Sluice, without any framework.

On a replica a database can't be written. ``connect`` (or ``factory=Connection``) gives sqlite3 connections that refuse
writes there at once with ``NotPrimary``; ``ReplayWSGI`` and ``ReplayASGI`` turn that into the answer on which the proxy
in front replays the whole request on the primary.
"""

from .asgi import ReplayASGI
from .attempt import Attempt, NotPrimary, NotReplayable, current, refusal
from .control import NoSluice, status, sync
from .files import Position, is_replica, position, primary
from .guard import Connection, Cursor, Guard, connect
from .replay import Answer, Proxy, replay_answer
from .wsgi import ReplayWSGI

__all__ = [
    "Answer",
    "Attempt",
    "Connection",
    "Cursor",
    "Guard",
    "NoSluice",
    "NotPrimary",
    "NotReplayable",
    "Position",
    "Proxy",
    "ReplayASGI",
    "ReplayWSGI",
    "connect",
    "current",
    "is_replica",
    "position",
    "primary",
    "refusal",
    "replay_answer",
    "require_primary",
    "status",
    "sync",
]


def require_primary(db_path: str) -> None:
    """For what must run on the primary though it writes no SQL, or before it does: raises NotPrimary on a replica."""
    name = primary(db_path)
    if name is not None:
        raise refusal(NotPrimary(db_path, name))
