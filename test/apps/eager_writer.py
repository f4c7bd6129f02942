"""Tries to write whenever it can, until standard input ends: eager_writer.py DB

Prints {"written": N, "refused": N}: transactions that it could begin, and those for which the database was locked.
"""

import json
import select
import sqlite3
import sys

written = refused = 0
while not select.select([sys.stdin], [], [], 0)[0]:
    db = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None)
    try:
        for _ in range(20):
            try:
                db.execute("begin immediate")
                written += 1
                db.execute("rollback")
            except sqlite3.OperationalError as error:
                if "locked" not in str(error):
                    raise
                refused += 1
    finally:
        db.close()
print(json.dumps({"written": written, "refused": refused}))
