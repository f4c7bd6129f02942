"""Applications beside a replica; each prints one JSON line.

usage: replica.py newest DB                  [the largest id of `log`]
       replica.py commit DB SECONDS RATE     commits at RATE a second; [id, wall clock ms after the commit] of each
       replica.py watch DB UNTIL             looks for new rows a thousand times a second until there is the id UNTIL;
                                             [id, wall clock ms at which it was first seen], newest of each look
       replica.py reads DB SECONDS           reads of one row, each its own transaction; reads per second
       replica.py large DB MEGABYTES         rewrites rows of that size in one commit; wall clock ms after it
       replica.py pages DB COUNT             changes COUNT rows far from each other in one commit, and commits one row to `log`
"""
import json
import os
import random
import sqlite3
import sys
import time

what, path, arguments = sys.argv[1], sys.argv[2], [float(a) for a in sys.argv[3:]]
db = sqlite3.connect(path, timeout=30, isolation_level=None)


def now():
    return round(1000 * time.time(), 3)


def commit(seconds, rate):
    db.execute("pragma synchronous=normal")
    seen = []
    start = time.monotonic()
    for i in range(int(seconds * rate)):
        n = db.execute("insert into log(t) values(0)").lastrowid
        seen.append([n, now()])
        time.sleep(max(0, start + (i + 1) / rate - time.monotonic()))
    return seen


def watch(until):
    seen = []
    last = 0
    while last < until:
        n = db.execute("select max(id) from log").fetchone()[0] or 0
        if n > last:
            seen.append([n, now()])
            last = n
        time.sleep(0.001)
    return seen


def reads(seconds):
    rows = db.execute("select max(id) from item").fetchone()[0]
    count = 0
    start = time.monotonic()
    while time.monotonic() < start + seconds:
        for _ in range(50):
            db.execute("select body from item where id = ?", (random.randint(1, rows),)).fetchone()
        count += 50
    return count / (time.monotonic() - start)


def large(megabytes):
    db.execute("begin immediate")
    db.execute("update item set body = randomblob(440) || substr(body, 441) where id <= ?", (int(megabytes * 1024),))
    db.execute("insert into log(t) values(0)")
    db.execute("commit")
    return now()


def pages(count):
    rows = db.execute("select max(id) from item").fetchone()[0]
    db.execute("begin immediate")
    for i in range(int(count)):
        db.execute("update item set body = ? where id = ?", (os.urandom(881), 1 + i * (rows // int(count))))
    db.execute("commit")
    db.execute("insert into log(t) values(0)")
    return now()


def newest():
    return [db.execute("select max(id) from log").fetchone()[0] or 0]


print(json.dumps({"newest": newest, "commit": commit, "watch": watch, "reads": reads, "large": large, "pages": pages}[what](*arguments)))
