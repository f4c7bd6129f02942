"""Writes to a bank of accounts as fast as asked: writer.py DB [--commits N] [--synchronous X] [--sleep S] [--seed N]

Each transaction moves money between accounts and appends a journal row, so the sum of the balances never changes.
Prints "commit N" for each commit when --verbose is given, and the number of commits at the end.
"""

import argparse
import random
import sqlite3
import time

parser = argparse.ArgumentParser()
parser.add_argument("db")
parser.add_argument("--commits", type=int, default=0)
parser.add_argument("--seconds", type=float, default=0)
parser.add_argument("--synchronous", default="NORMAL")
parser.add_argument("--page-size", type=int, default=4096)
parser.add_argument("--auto-vacuum", default="NONE")
parser.add_argument("--accounts", type=int, default=100)
parser.add_argument("--payload", type=int, default=40)
parser.add_argument("--sleep", type=float, default=0)
parser.add_argument("--timeout", type=float, default=10)
parser.add_argument("--mmap", type=int, default=0)
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--tolerate", action="store_true", help="count 'database is locked' instead of ending with it")
parser.add_argument("--verbose", action="store_true")
args = parser.parse_args()

random.seed(args.seed)
db = sqlite3.connect(args.db, timeout=args.timeout, isolation_level=None)
db.execute(f"pragma page_size={args.page_size}")
db.execute(f"pragma auto_vacuum={args.auto_vacuum}")
db.execute("pragma journal_mode=wal")
db.execute(f"pragma synchronous={args.synchronous}")
db.execute(f"pragma mmap_size={args.mmap}")
db.execute("begin immediate")
db.execute("create table if not exists account(id integer primary key, balance integer)")
db.execute("create table if not exists journal(id integer primary key, note blob)")
if db.execute("select count(*) from account").fetchone()[0] == 0:
    db.executemany("insert into account(balance) values(?)", [(100,)] * args.accounts)
db.execute("commit")

start = time.monotonic()
done = locked = 0
stalls = []
while (args.commits and done < args.commits) or (args.seconds and time.monotonic() - start < args.seconds):
    before = time.monotonic()
    try:
        db.execute("begin immediate")
    except sqlite3.OperationalError:
        if not args.tolerate:
            raise
        locked += 1
        time.sleep(args.sleep)
        continue
    a, b = random.randint(1, args.accounts), random.randint(1, args.accounts)
    db.execute("update account set balance=balance-1 where id=?", (a,))
    db.execute("update account set balance=balance+1 where id=?", (b,))
    db.execute("insert into journal(note) values(?)", (random.randbytes(args.payload),))
    db.execute("commit")
    took = time.monotonic() - before
    stalls.append(took)
    done += 1
    if args.verbose:
        print(f"commit {done} {time.time()}", flush=True)
    if args.sleep:
        time.sleep(args.sleep)
stalls.sort()
rate = done / (time.monotonic() - start)
p99 = stalls[int(len(stalls) * 0.99)] if stalls else 0
print(f"commits {done} rate {rate:.0f} p99 {p99 * 1000:.3f} max {(stalls[-1] if stalls else 0) * 1000:.3f} locked {locked}", flush=True)
