"""Transfers between accounts, and readers that check what always holds: transfers.py write|read DB --seconds S

write: commits until the time is up (creates the tables when they aren't there) and prints the number of commits.
read: in each transaction the balances add up to nothing, the newest transfer is the number in `state`, a second look
finds the same, and nothing is older than before; now and then integrity_check. Prints "rounds N bad M" and says on the
lines before what was bad. Errors that are none of these are counted apart.
"""

import argparse
import collections
import random
import sqlite3
import time

parser = argparse.ArgumentParser()
parser.add_argument("what", choices=["write", "read"])
parser.add_argument("db")
parser.add_argument("--seconds", type=float, default=0)
parser.add_argument("--commits", type=int, default=0)
parser.add_argument("--pause", type=float, default=0)
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--accounts", type=int, default=500)
args = parser.parse_args()
rng = random.Random(args.seed)
end = time.monotonic() + args.seconds if args.seconds else float("inf")


def write():
    db = sqlite3.connect(args.db, timeout=10, isolation_level=None)
    db.execute("pragma journal_mode=wal")
    db.execute("pragma synchronous=normal")
    db.execute("begin immediate")
    db.execute("create table if not exists account(id integer primary key, balance integer)")
    db.execute("create table if not exists transfer(n integer primary key, a, b, amount, note blob)")
    db.execute("create table if not exists state(n integer)")
    if db.execute("select count(*) from account").fetchone()[0] == 0:
        db.executemany("insert into account values(?, 0)", [(i,) for i in range(args.accounts)])
        db.execute("insert into state values(0)")
    db.execute("commit")
    done = 0
    while time.monotonic() < end and (not args.commits or done < args.commits):
        a, b, amount = rng.randrange(args.accounts), rng.randrange(args.accounts), rng.randrange(100)
        db.execute("begin immediate")
        db.execute("update account set balance = balance - ? where id = ?", (amount, a))
        db.execute("update account set balance = balance + ? where id = ?", (amount, b))
        db.execute("update state set n = n + 1")
        # Mostly small; now and then many pages.
        note = bytes(rng.choice([0, 20, 20, 20, 5000, 60_000 if done % 10 == 0 else 20]))
        db.execute("insert into transfer select n, ?, ?, ?, ? from state", (a, b, amount, note))
        if done % 50 == 49:
            db.execute("delete from transfer where n < (select n - 1000 from state)")
        db.execute("commit")
        done += 1
        if args.pause:
            time.sleep(args.pause)
    print("commits", done, flush=True)


def look(db):
    return db.execute(
        "select (select sum(balance) from account), (select n from state), (select max(n) from transfer),"
        " (select count(*) from account)"
    ).fetchone()


def read():
    errors = collections.Counter()
    rounds = bad = before = 0
    db = None
    while time.monotonic() < end:
        try:
            if db is None or rng.random() < 0.03:
                db = sqlite3.connect(args.db, timeout=5, isolation_level=None)
                db.execute(f"pragma mmap_size={rng.choice([0, 0, 1 << 26])}")
                db.execute(f"pragma cache_size={rng.choice([5, 2000])}")
            db.execute("begin")
            first = look(db)
            if rng.random() < 0.02:
                time.sleep(0.3 * rng.random())
            check = db.execute("pragma integrity_check").fetchone()[0] if rounds % 100 == 0 else "ok"
            second = look(db)
            db.execute("commit")
            total, n, newest, accounts = first
            if second != first or total != 0 or newest != n or n < before or accounts != args.accounts or check != "ok":
                bad += 1
                print("bad:", first, second, "before", before, check, flush=True)
            before = n
            rounds += 1
            time.sleep(args.pause)
        except sqlite3.Error as error:
            errors[str(error)] += 1
            db = None
            time.sleep(0.01)
    print("errors", dict(errors))
    print("rounds", rounds, "bad", bad, flush=True)


write() if args.what == "write" else read()
