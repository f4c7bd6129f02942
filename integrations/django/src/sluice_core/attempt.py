"""One try of a node to answer a request, and what became of its writes.

The refusal of a write is an exception, but frameworks and views catch exceptions broadly. So it is noted in the
attempt, too, which the middleware looks at in the end.

States: open -> refused (the request is replayed on the primary) | broken (it can't be: something is committed or sent).
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, List, Optional

if TYPE_CHECKING:
    from .guard import Guard

#: Characters of a statement that an error shows; values are never in it, but literals may be.
_SHOWN = 60


class NotPrimary(Exception):
    """A write on a replica, refused before SQLite was asked. The request has changed nothing: it can be replayed."""

    def __init__(self, database: str, primary: str = "", statement: str = "") -> None:
        self.database = database
        #: The primary's name; "" when the replica doesn't know it.
        self.primary = primary
        self.statement = " ".join(statement.split())[:_SHOWN]
        what = f" ({self.statement})" if self.statement else ""
        where = f"the primary is {primary}" if primary else "no primary is known"
        self.what = f"{database} is a replica here, so this can't be written{what}; {where}."
        super().__init__(
            f"{self.what} In a request the middleware has it replayed on the primary; a command runs there with "
            "`sluice exec --on-primary -- CMD`."
        )


class NotReplayable(Exception):
    """A write was refused when it was too late to replay the request: a part of it is committed, or sent."""


class Attempt:
    """What the middleware and the connections of one request know of each other."""

    __slots__ = ("broken", "guards", "refused", "streaming")

    def __init__(self) -> None:
        self.refused: Optional[NotPrimary] = None
        self.broken: Optional[NotReplayable] = None
        #: The response has begun; its status and headers are gone.
        self.streaming = False
        self.guards: List[Guard] = []

    def refuse(self, error: NotPrimary) -> Exception:
        """Notes a refused write; what is to be raised for it."""
        late = None if self.must_replay and not self.streaming else self._why_late()
        if late is None:
            self.refused = self.refused or error
            return error
        self.broken = NotReplayable(f"{error.what} This request can't be replayed: {late}")
        return self.broken

    @property
    def must_replay(self) -> bool:
        """Whether nothing but a replay is right, whatever the application answered."""
        return self.refused is not None and self.broken is None

    def _why_late(self) -> Optional[str]:
        if self.streaming:
            return "its response is being streamed. Write before the first byte, or have the route run on the primary."
        if any(guard.has_committed() for guard in self.guards):
            return "it committed changes here before this node ceased to be the primary."
        return None


current: ContextVar[Optional[Attempt]] = ContextVar("sluice_attempt", default=None)


def refusal(error: NotPrimary) -> Exception:
    """What is to be raised for a refused write, in a request or outside of one."""
    attempt = current.get()
    return error if attempt is None else attempt.refuse(error)
