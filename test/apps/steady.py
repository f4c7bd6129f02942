"""A writer without a pause, which writes down each of its commits elsewhere: steady.py DB JOURNAL NAME

A line of the journal a write: "N MS" when commit N has succeeded, and after how many ms; "failed WHY" when it hasn't.
Goes on until SIGTERM.
"""

import os
import signal
import sqlite3
import sys
import time

file, journal, name = sys.argv[1:]
running = True


def stop(*_):
    global running
    running = False


signal.signal(signal.SIGTERM, stop)
out = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
db = sqlite3.connect(file, timeout=10, isolation_level=None)
db.execute("pragma wal_autocheckpoint=200")
n = 0
while running:
    start = time.monotonic()
    try:
        db.execute("insert into written values(?, ?, ?)", (name, n + 1, os.urandom(300)))
        n += 1
        os.write(out, f"{n} {(time.monotonic() - start) * 1000:.1f}\n".encode())
    except sqlite3.Error as error:
        os.write(out, f"failed {error}\n".encode())
