"""Reads a database page for page: pages.py DB

For each line of its input it prints one: SHA-256 of all pages as this SQLite reads them, and what integrity_check says.
The line "new" is for a new connection, any other for the one there is.
"""

import hashlib
import os
import sqlite3
import sys
import tempfile

path = sys.argv[1]


def pages(db):
    """A backup in one step is one read transaction. It changes some numbers in the header of the copy."""
    with tempfile.TemporaryDirectory() as directory:
        copy = sqlite3.connect(os.path.join(directory, "copy"), isolation_level=None)
        copy.execute("pragma synchronous=off")
        db.backup(copy)
        copy.close()
        with open(os.path.join(directory, "copy"), "rb") as file:
            content = bytearray(file.read())
    for first, last in [(18, 20), (24, 28), (40, 44), (92, 100)]:
        content[first:last] = bytes(last - first)
    return bytes(content)


db = None
for line in sys.stdin:
    if db is None or line.strip() == "new":
        if db is not None:
            db.close()
        db = sqlite3.connect(path, timeout=5, isolation_level=None)
        db.execute("pragma cache_size=20")
    try:
        digest = hashlib.sha256(pages(db)).hexdigest()
        print(digest, db.execute("pragma integrity_check").fetchone()[0], flush=True)
    except sqlite3.Error as error:
        print(type(error).__name__, error, flush=True)
