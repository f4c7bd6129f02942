"""Does everything to a database that an application may do: storm.py DB --seed N --seconds S

Inserts of all sizes, updates, deletes, savepoints, rollbacks, transactions that spill out of the cache, schema
changes, VACUUM, incremental vacuum, explicit checkpoints of every kind, attempts to leave WAL mode, connections that
come and go. Every row carries a checksum of its own content, and the table `total` the sum over all rows, so a reader
can tell a state between two commits from a real one. Busy and locked errors are counted, other errors end it.
"""

import argparse
import random
import sqlite3
import time
import zlib

parser = argparse.ArgumentParser()
parser.add_argument("db")
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--seconds", type=float, default=3)
parser.add_argument("--page-size", type=int, default=4096)
parser.add_argument("--auto-vacuum", default="NONE")
parser.add_argument("--big", type=int, default=200_000, help="bytes of the largest transaction")
parser.add_argument("--create", action="store_true", help="create the tables and end")
args = parser.parse_args()
rng = random.Random(args.seed)


def connect():
    db = sqlite3.connect(args.db, timeout=10, isolation_level=None)
    if args.create:
        db.execute(f"pragma page_size={args.page_size}")
        db.execute(f"pragma auto_vacuum={args.auto_vacuum}")
    db.execute("pragma journal_mode=wal")
    db.execute(f"pragma synchronous={rng.choice(['OFF', 'NORMAL', 'FULL', 'EXTRA'])}")
    db.execute(f"pragma cache_size={rng.choice([5, 50, 2000])}")
    db.execute(f"pragma mmap_size={rng.choice([0, 0, 1 << 24])}")
    db.execute(f"pragma wal_autocheckpoint={rng.choice([0, 5, 1000])}")
    return db


def reconnect(end):
    """Opening may meet the last close of somebody else."""
    while True:
        try:
            return connect()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end + 10:
                raise


def insert(db, size):
    body = rng.randbytes(size)
    db.execute("insert into item(body, sum) values(?, ?)", (body, zlib.crc32(body)))
    db.execute("update total set n = n + 1, bytes = bytes + ?", (size,))


def delete(db, some):
    rows = db.execute("select id, length(body) from item order by random() limit ?", (some,)).fetchall()
    for row, size in rows:
        db.execute("delete from item where id = ?", (row,))
        db.execute("update total set n = n - 1, bytes = bytes - ?", (size,))


def work(db):
    for _ in range(rng.choice([1, 1, 2, 10])):
        if rng.random() < 0.6:
            insert(db, rng.choice([10, 100, 3000, 20_000]))
        else:
            delete(db, rng.choice([1, 5, 50]))


def step(db):
    kind = rng.random()
    if kind < 0.60:
        db.execute(rng.choice(["begin", "begin immediate", "begin exclusive"]))
        work(db)
        if rng.random() < 0.3:
            db.execute("savepoint s")
            work(db)
            db.execute(rng.choice(["rollback to s", "release s"]))
        db.execute("rollback" if rng.random() < 0.15 else "commit")
    elif kind < 0.68:
        db.execute("begin immediate")
        left = rng.randrange(args.big // 10, args.big)
        while left > 0:
            size = rng.randrange(1, 20_000)
            insert(db, size)
            left -= size
        db.execute("rollback" if rng.random() < 0.3 else "commit")
    elif kind < 0.74:
        db.execute("begin immediate")
        delete(db, 1000)
        db.execute("commit")
    elif kind < 0.78:
        db.execute("vacuum")
    elif kind < 0.82:
        db.execute("pragma incremental_vacuum(%d)" % rng.choice([0, 3]))
    elif kind < 0.90:
        db.execute("pragma wal_checkpoint(%s)" % rng.choice(["passive", "full", "restart", "truncate"])).fetchall()
    elif kind < 0.94:
        name = "t%d" % rng.randrange(5)
        db.execute("begin immediate")
        db.execute(f"create table if not exists {name}(a, b)")
        db.execute(f"create index if not exists {name}i on {name}(a)")
        db.execute(f"drop table if exists t{rng.randrange(5)}")
        db.execute("commit")
    elif kind < 0.97:
        db.execute("pragma user_version=%d" % rng.randrange(1 << 30))
    else:
        db.execute("pragma journal_mode=delete").fetchall()


def main():
    db = reconnect(time.monotonic())
    if args.create:
        db.execute("begin immediate")
        db.execute("create table item(id integer primary key, body blob, sum integer)")
        db.execute("create table total(n integer, bytes integer)")
        db.execute("insert into total values(0, 0)")
        db.execute("commit")
        return
    end = time.monotonic() + args.seconds
    steps = busy = 0
    while time.monotonic() < end:
        try:
            step(db)
            steps += 1
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) and "busy" not in str(error):
                raise
            busy += 1
            if db.in_transaction:
                db.execute("rollback")
        if rng.random() < 0.02:
            db.close()
            db = reconnect(end)
    db.close()
    print(f"steps {steps} busy {busy}", flush=True)


main()
