"""Reads a bank of `test/database/bank-source.ts` while it changes: follow.py DB --until N --seconds S [--seed SEED]

Each read is a transaction that must find one state: balances that add up to nothing, a journal that ends at the state's
number, and the same again when it looks twice; and no state before the one of its last read. Connections with and
without mapped input and output, with small and large caches, come and go; some transactions take their time. Ends at
state N: prints "ok READS", or says what is wrong and exits with 1.
"""

import argparse
import random
import sqlite3
import sys
import time

parser = argparse.ArgumentParser()
parser.add_argument("db")
parser.add_argument("--until", type=int, required=True)
parser.add_argument("--seconds", type=float, default=60)
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--hold", type=float, default=0.02, help="seconds of the longest transactions")
args = parser.parse_args()
rng = random.Random(args.seed)


def connect():
    db = sqlite3.connect(args.db, timeout=5, isolation_level=None)
    db.execute(f"pragma mmap_size={rng.choice([0, 0, 1 << 16, 1 << 26])}")
    db.execute(f"pragma cache_size={rng.choice([5, 2000])}")
    return db


def look(db):
    n, payload = db.execute("select n, payload from state").fetchone()
    total, accounts = db.execute("select sum(balance), count(*) from account").fetchone()
    last, size = db.execute("select max(n), sum(length(body)) from journal").fetchone()
    return n, payload, total, accounts, last, size


def read(db, before):
    """The number of the state, or raises."""
    db.execute("begin")
    try:
        found = look(db)
        n, payload, total, accounts, last, size = found
        if total != 0 or accounts != 500 or last != n or size != payload:
            raise AssertionError(f"torn: {found}")
        if n < before:
            raise AssertionError(f"back from {before} to {n}")
        if rng.random() < 0.05:
            time.sleep(rng.random() * args.hold)
        if rng.random() < 0.3 and look(db) != found:
            raise AssertionError(f"{found} became {look(db)}")
        if rng.random() < 0.02:
            result = db.execute("pragma integrity_check").fetchall()
            if result != [("ok",)]:
                raise AssertionError(f"integrity_check: {result}")
        return n
    finally:
        db.execute("commit")


def main():
    end = time.monotonic() + args.seconds
    db = connect()
    reads = n = 0
    while n < args.until:
        if time.monotonic() > end:
            raise AssertionError(f"still at state {n} after {reads} reads")
        if rng.random() < 0.03:
            db.close()
            db = connect()
        n = read(db, n)
        reads += 1
        time.sleep(0.0005)
    print(f"ok {reads}", flush=True)


try:
    main()
except (AssertionError, sqlite3.Error) as error:
    print(f"SQLite {sqlite3.sqlite_version}: {error}", flush=True)
    sys.exit(1)
