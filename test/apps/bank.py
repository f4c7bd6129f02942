"""A bank whose every commit is written down elsewhere, too: bank.py DB JOURNAL --seed N, or bank.py DB --create

Commit n moves money between two accounts and appends row n to the table `history`, so a state is a number of commits.
The journal is only appended to, a line a write: "pid P" at the start, "sent N TOKEN FROM TO AMOUNT" before a commit,
"committed N TOKEN" after it has succeeded. Goes on until it is killed.
"""

import argparse
import os
import random
import sqlite3
import time

parser = argparse.ArgumentParser()
parser.add_argument("db")
parser.add_argument("journal", nargs="?")
parser.add_argument("--seed", type=int, default=1)
parser.add_argument("--accounts", type=int, default=500)
parser.add_argument("--create", action="store_true")
args = parser.parse_args()
rng = random.Random(args.seed)


def connect():
    db = sqlite3.connect(args.db, timeout=10, isolation_level=None)
    db.execute("pragma journal_mode=wal")
    db.execute(f"pragma synchronous={rng.choice(['NORMAL', 'FULL'])}")
    db.execute(f"pragma cache_size={rng.choice([10, 2000])}")
    db.execute(f"pragma wal_autocheckpoint={rng.choice([10, 1000])}")
    return db


def transfer(db, note):
    a, b, amount = rng.randrange(args.accounts), rng.randrange(args.accounts), rng.randrange(100)
    token = os.urandom(8).hex()
    db.execute("begin immediate")
    n = db.execute("select coalesce(max(n), 0) + 1 from history").fetchone()[0]
    db.execute("update account set balance = balance - ? where id = ?", (amount, a))
    # Now and then enough to spill out of the cache before the commit.
    filler = rng.randbytes(rng.choice([0, 100, 100, 3000, 200_000]))
    db.execute("insert into history values(?, ?, ?, ?, ?, ?)", (n, token, a, b, amount, filler))
    if n > 300:
        db.execute("update history set filler = '' where n = ?", (n - 300,))
    db.execute("update account set balance = balance + ? where id = ?", (amount, b))
    note(f"sent {n} {token} {a} {b} {amount}")
    db.execute("commit")
    note(f"committed {n} {token}")


def main():
    db = connect()
    if args.create:
        db.execute("create table account(id integer primary key, balance integer)")
        db.executemany("insert into account values(?, 0)", [(i,) for i in range(args.accounts)])
        db.execute("create table history(n integer primary key, token text, a, b, amount, filler blob)")
        return
    journal = os.open(args.journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    note = lambda line: os.write(journal, (line + "\n").encode())
    note(f"pid {os.getpid()}")
    while True:
        try:
            transfer(db, note)
            if rng.random() < 0.02:
                db.close()
                db = connect()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            if db.in_transaction:
                db.execute("rollback")
        time.sleep(rng.choice([0, 0.002, 0.01]))


main()
