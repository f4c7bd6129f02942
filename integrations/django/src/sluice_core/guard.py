"""Keeps sqlite3 connections from writing on a replica, before SQLite asks for a lock.

SQLite itself decides what a write is: on a replica ``PRAGMA query_only`` is on, and the VDBE refuses a statement that
opens a write transaction (``OP_Transaction``) with SQLITE_READONLY when it runs: also one that was compiled and
cached earlier, triggers, common table expressions, virtual tables, ``BEGIN IMMEDIATE``. No statement is parsed here, and
on a primary nothing is asked but whether the ``.primary`` file is there. (An authorizer would be called for each column
when a statement is compiled, not when it runs, and refuses the statements that an R-tree prepares for later.)

What query_only gets wrong is mended where it has refused, so at no cost elsewhere: tables of the ``temp`` schema and
attached databases that are no replicas may be written, which ``EXPLAIN`` tells for the statement as a whole.
"""

from __future__ import annotations

import os
import re
import sqlite3
from itertools import chain
from typing import Any, Callable, Iterable, Literal, Optional
from urllib.parse import unquote, urlsplit

from .attempt import Attempt, NotPrimary, current, refusal
from .files import primary, primary_file, primary_file_exists

_COMMENTS = r"(?:\s|--[^\n]*(?:\n|$)|/\*.*?\*/|;)*"
_VACUUM = re.compile(rf"{_COMMENTS}vacuum\b", re.I | re.S)
_INTO = re.compile(r"\binto\b", re.I)
_JOURNAL_MODE = re.compile(rf"{_COMMENTS}pragma\s+(?:\w+\.)?journal_mode\s*(?:=|\()\s*['\"]?(?!wal\b)\w", re.I | re.S)
_OPTIMIZE = re.compile(rf"{_COMMENTS}pragma\s+(?:\w+\.)?optimize\b", re.I | re.S)
_TEMP = 1


class Guard:
    """The watch over one connection. ``closed`` is whether ``query_only`` is on because the node is a replica."""

    __slots__ = ("_attempt", "_before", "_file", "_mark", "_reads_only", "closed", "connection", "doomed", "path")

    def __init__(self, connection: sqlite3.Connection, path: Optional[str]) -> None:
        self.connection = connection
        #: None for a database in memory, which is nobody's replica.
        self.path = path
        self._file = "" if path is None else primary_file(path)
        self.closed = False
        #: A write was refused in the open transaction: it must not be committed as if nothing had happened.
        self.doomed = False
        #: What the user had set.
        self._reads_only = 0
        self._attempt: Optional[Attempt] = None
        self._mark = 0
        self._before = 0

    @property
    def is_replica(self) -> bool:
        return self.path is not None and primary_file_exists(self._file)

    def has_committed(self) -> bool:
        """Whether this request committed changes by this connection while the node was the primary."""
        try:
            in_transaction = self.connection.in_transaction
            return (self._before if in_transaction else self.connection.total_changes) > self._mark
        except sqlite3.ProgrammingError:
            # Closed, or another thread's: nobody knows.
            return True

    def run(self, call: Callable[..., Any], sql: str, *args: Any) -> Any:
        """Runs one statement. Raises NotPrimary (or NotReplayable) for a write on a replica."""
        if self.path is None:
            return call(sql, *args)
        self._look()
        if not self.closed:
            try:
                return call(sql, *args)
            except sqlite3.OperationalError as error:
                # The node ceased to be the primary while SQLite waited for the lock.
                if is_locked(error) and self.is_replica:
                    raise self.refuse(sql) from error
                raise
        if self._must_not_run(sql):
            raise self.refuse(sql)
        if _OPTIMIZE.match(sql):
            # Housekeeping at the end of connections; the primary does it for all.
            return call("PRAGMA optimize(0)")
        try:
            return call(sql, *args)
        except sqlite3.OperationalError as error:
            if not is_readonly(error):
                raise
            if not self._writes_elsewhere(sql, *args):
                raise self.refuse(sql) from error
        return self._opened(call, sql, *args)

    def run_many(self, call: Callable[..., Any], sql: str, rows: Iterable[Any]) -> Any:
        """``executemany``: SQLite must not have eaten the first row when it turns out where it belongs."""
        if self.path is None:
            return call(sql, rows)
        self._look()
        if not self.closed:
            return self.run(call, sql, rows)
        rows = iter(rows)
        for first in rows:
            if not self._writes_elsewhere(sql, first):
                raise self.refuse(sql)
            return self._opened(call, sql, chain((first,), rows))
        return call(sql, ())

    def run_script(self, call: Callable[..., Any], script: str) -> Any:
        """``executescript``: on a replica refused at its first write, also of a temporary table."""
        return self.run(lambda sql: call(sql), script)

    def refuse(self, sql: str = "") -> Exception:
        """What is to be raised for a refused write; notes it in the request, and in the open transaction."""
        self.doomed = self.connection.in_transaction
        path = self.path or ""
        return refusal(NotPrimary(path, primary(path) or "", sql))

    def _look(self) -> None:
        """Brings the connection into the node's role, and remembers what was committed before this statement."""
        replica = primary_file_exists(self._file)
        if replica != self.closed:
            self._turn(replica)
        attempt = current.get()
        if attempt is not None:
            total = self.connection.total_changes
            if attempt is not self._attempt:
                self._attempt, self._mark, self._before = attempt, total, total
                attempt.guards.append(self)
            elif not self.connection.in_transaction:
                self._before = total
        if self.doomed and not self.connection.in_transaction:
            self.doomed = False

    def _turn(self, closed: bool) -> None:
        query_only = self._plain("PRAGMA query_only")[0][0]
        if closed:
            self._reads_only = query_only
        self._plain(f"PRAGMA query_only = {1 if closed else self._reads_only}")
        self.closed = closed

    def _plain(self, sql: str, *args: Any) -> list[Any]:
        cursor = sqlite3.Cursor(self.connection)
        cursor.row_factory = None
        return sqlite3.Cursor.execute(cursor, sql, *args).fetchall()

    def _must_not_run(self, sql: str) -> bool:
        """Writes that take locks before they look at query_only, or beside it."""
        if _VACUUM.match(sql):
            return not _INTO.search(sql)
        return _JOURNAL_MODE.match(sql) is not None

    def _writes_elsewhere(self, sql: str, *args: Any) -> bool:
        """Whether a statement that query_only refused writes nothing but temporary tables and other databases."""
        if _VACUUM.match(sql):
            return True
        try:
            steps = self._plain(f"EXPLAIN {sql}", *args)
        except sqlite3.Error:
            return False
        # Columns: address, opcode, p1 (which database), p2 (1: to write).
        written = {step[2] for step in steps if step[1] == "Transaction" and step[3] > 0}
        return all(index == _TEMP or self._is_elsewhere(index) for index in written)

    def _is_elsewhere(self, index: int) -> bool:
        if index == 0:
            return False
        files = {row[0]: row[2] for row in self._plain("PRAGMA database_list")}
        file = files.get(index)
        return file is not None and (file == "" or not primary_file_exists(primary_file(file)))

    def _opened(self, call: Callable[..., Any], sql: str, *args: Any) -> Any:
        before = self.connection.total_changes
        self._plain("PRAGMA query_only = 0")
        try:
            return call(sql, *args)
        finally:
            self._plain("PRAGMA query_only = 1")
            self._mark += self.connection.total_changes - before


def is_locked(error: sqlite3.Error) -> bool:
    """SQLITE_BUSY of whatever kind. The code is there from Python 3.11 on."""
    code = getattr(error, "sqlite_errorcode", None)
    return (code & 0xFF) == 5 if code is not None else "database is locked" in str(error)


def is_readonly(error: sqlite3.Error) -> bool:
    """SQLITE_READONLY of whatever kind."""
    code = getattr(error, "sqlite_errorcode", None)
    return (code & 0xFF) == 8 if code is not None else "readonly database" in str(error)


class Cursor(sqlite3.Cursor):
    """A cursor that refuses writes on a replica."""

    connection: Connection

    def execute(self, sql: str, *args: Any) -> Any:
        return self.connection.guard.run(super().execute, sql, *args)

    def executemany(self, sql: str, rows: Iterable[Any]) -> Any:
        return self.connection.guard.run_many(super().executemany, sql, rows)

    def executescript(self, script: str) -> Any:
        return self.connection.guard.run_script(super().executescript, script)


class Connection(sqlite3.Connection):
    """A connection that refuses writes on a replica: ``sqlite3.connect(path, factory=Connection)``."""

    guard: Guard

    def __init__(self, database: Any, *args: Any, **options: Any) -> None:
        super().__init__(database, *args, **options)
        uri = options.get("uri", args[6] if len(args) > 6 else False)
        self.guard = Guard(self, file_of(database, bool(uri)))

    def cursor(self, factory: Any = Cursor) -> Any:
        return super().cursor(factory)

    def execute(self, sql: str, *args: Any) -> Any:
        return self.cursor().execute(sql, *args)

    def executemany(self, sql: str, rows: Iterable[Any]) -> Any:
        return self.cursor().executemany(sql, rows)

    def executescript(self, script: str) -> Any:
        return self.cursor().executescript(script)

    def commit(self) -> None:
        """Raises NotPrimary, after a rollback, when a write was refused in this transaction and the error swallowed."""
        if self.guard.doomed and self.in_transaction:
            error = self.guard.refuse("COMMIT")
            super().rollback()
            raise error
        super().commit()

    def __exit__(self, kind: Any, error: Any, trace: Any) -> Literal[False]:
        # sqlite3's own does not come by the commit above.
        if kind is None:
            self.commit()
        else:
            self.rollback()
        return False


def connect(database: Any, **options: Any) -> Connection:
    """``sqlite3.connect`` with a connection that refuses writes on a replica."""
    options.setdefault("factory", Connection)
    return sqlite3.connect(database, **options)  # type: ignore[no-any-return]


def file_of(database: Any, uri: bool) -> Optional[str]:
    """The file behind what ``sqlite3.connect`` is given; None for a database in memory or a temporary one."""
    name = os.fsdecode(database)
    if uri and name.startswith("file:"):
        parts = urlsplit(name)
        if "mode=memory" in parts.query.split("&") or parts.path in ("", ":memory:"):
            return None
        return unquote(parts.path)
    return None if name in ("", ":memory:") else name
