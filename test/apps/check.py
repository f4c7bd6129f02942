"""Checks what storm.py keeps true: check.py DB [--seconds S] [--hold S]

Every row's checksum, the totals and the integrity of the file, once or again and again for some seconds. With --hold
each read transaction stays open that long. Prints "ok READS", or what is wrong and exits with 1.
"""

import argparse
import sqlite3
import sys
import time
import zlib

parser = argparse.ArgumentParser()
parser.add_argument("db")
parser.add_argument("--seconds", type=float, default=0)
parser.add_argument("--hold", type=float, default=0)
parser.add_argument("--integrity", action="store_true")
args = parser.parse_args()


def check(db):
    db.execute("begin")
    try:
        n = total = 0
        for body, sum_ in db.execute("select body, sum from item"):
            if zlib.crc32(body) != sum_:
                return "a row's checksum is wrong"
            n += 1
            total += len(body)
        if args.hold:
            time.sleep(args.hold)
        if db.execute("select n, bytes from total").fetchone() != (n, total):
            return f"{n} rows of {total} bytes, but the totals say {db.execute('select * from total').fetchone()}"
        if args.integrity:
            result = db.execute("pragma integrity_check").fetchall()
            if result != [("ok",)]:
                return f"integrity_check: {result}"
        return None
    finally:
        db.execute("commit")


db = sqlite3.connect(args.db, timeout=10, isolation_level=None)
end = time.monotonic() + args.seconds
reads = 0
while True:
    wrong = check(db)
    if wrong:
        print(wrong, flush=True)
        sys.exit(1)
    reads += 1
    if time.monotonic() >= end:
        break
print(f"ok {reads}", flush=True)
