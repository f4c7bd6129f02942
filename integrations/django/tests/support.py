"""A simulated replica: the ``.primary`` file, and a write lock on the database that another process holds.

With the lock held, SQLite can only wait; so a write that is refused was refused before SQLite was asked.
"""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

BASE = Path(os.environ["TEST_DIR"])
#: Far below the busy timeout of 40 s, far above what a loaded machine needs.
AT_ONCE_S = 20
_HOLDER = """
import sqlite3, sys
held = sqlite3.connect(sys.argv[1], isolation_level=None)
held.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.read()
"""


def become_replica(folder, primary="node-b"):
    (BASE / folder / ".primary").write_text(f"{primary}\n")


def become_primary(folder):
    (BASE / folder / ".primary").unlink(missing_ok=True)


@contextlib.contextmanager
def lock_held(file):
    """The write lock of a database is another process's."""
    holder = subprocess.Popen([sys.executable, "-c", _HOLDER, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        yield
    finally:
        holder.stdin.close()
        holder.wait()
        holder.stdout.close()


@contextlib.contextmanager
def replica(folder="main", primary="node-b"):
    with lock_held(BASE / folder / "app.db"):
        become_replica(folder, primary)
        try:
            yield
        finally:
            become_primary(folder)


@contextlib.contextmanager
def at_once():
    start = time.monotonic()
    yield
    took = time.monotonic() - start
    assert took < AT_ONCE_S, f"took {took:.1f} s: it waited for the lock"
