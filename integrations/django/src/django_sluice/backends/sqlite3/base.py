"""Django's SQLite backend, whose connections refuse writes on a replica (``sluice_core.guard`` says how)."""

from __future__ import annotations

from typing import Any, Dict

from django.core.exceptions import ImproperlyConfigured
from django.db.backends.sqlite3 import base
from sluice_core import Connection, Cursor, NotPrimary, NotReplayable


class CursorWrapper(base.SQLiteCursorWrapper, Cursor):
    """Django's cursor, which turns its placeholders into SQLite's, and below it the one that refuses."""


class DatabaseWrapper(base.DatabaseWrapper):
    def get_connection_params(self) -> Dict[str, Any]:
        params: Dict[str, Any] = super().get_connection_params()
        factory = params.setdefault("factory", Connection)
        if not (isinstance(factory, type) and issubclass(factory, Connection)):
            raise ImproperlyConfigured("OPTIONS['factory'] must be a subclass of sluice_core.Connection")
        return params

    def create_cursor(self, name: Any = None) -> Any:
        return self.connection.cursor(factory=CursorWrapper)

    def _start_transaction_under_autocommit(self) -> None:
        # With transaction_mode IMMEDIATE each atomic block asks for the write lock, also one that will only read: on a
        # replica it may, and its first write is refused.
        if self.connection.guard.is_replica:
            self.cursor().execute("BEGIN")
        else:
            super()._start_transaction_under_autocommit()  # type: ignore[misc]

    def _commit(self) -> Any:
        try:
            return super()._commit()  # type: ignore[misc]
        except (NotPrimary, NotReplayable):
            # Rolled back, since a write in it was refused and the error swallowed. What was to run after the commit
            # must not run after the next one.
            self.run_on_commit = []
            raise
