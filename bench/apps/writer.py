"""A writing application for the benchmarks; prints one JSON line.

usage: writer.py init DB MEGABYTES           a WAL database with a table of about that size
       writer.py run  DB SECONDS RATE SYNC   one small transaction after another: at most RATE a second (0: as fast as
                                             possible), `synchronous` SYNC; reports commits/s and latencies in ms
       writer.py stamp DB COUNT PAUSE SYNC   COUNT commits PAUSE seconds apart; prints the wall clock time of each
"""
import json
import os
import random
import sqlite3
import sys
import time

DDL = "create table if not exists item(id integer primary key, body blob); create table if not exists log(id integer primary key, t real)"


def init(path, megabytes):
    c = sqlite3.connect(path, isolation_level=None)
    c.execute("pragma journal_mode=wal")
    c.executescript(DDL)
    c.execute("begin")
    # Half of each row compresses, as ordinary rows do.
    for i in range(int(megabytes * 1024)):
        c.execute("insert into item(body) values(?)", (os.urandom(440) + b"sluice " * 63,))
        if i % 20000 == 19999:
            c.execute("commit")
            c.execute("begin")
    c.execute("commit")
    c.execute("pragma wal_checkpoint(truncate)")
    c.close()


def quantile(values, q):
    return round(1000 * values[min(len(values) - 1, int(len(values) * q))], 3)


def run(path, seconds, rate, sync):
    c = sqlite3.connect(path, timeout=30, isolation_level=None)
    c.execute("pragma synchronous=" + sync)
    c.executescript(DDL)
    n = c.execute("select coalesce(max(id), 0) from item").fetchone()[0]
    start = time.perf_counter()
    latencies, longest, window, count = [], [], 0, 0
    worst = 0.0
    while True:
        begin = time.perf_counter()
        if begin - start >= seconds:
            break
        if int(begin - start) != window:
            longest.append(worst)
            window, worst = int(begin - start), 0.0
        c.execute("begin immediate")
        if n:
            c.execute("update item set body = ? where id = ?", (os.urandom(64), random.randint(1, n)))
        c.execute("insert into log(t) values(?)", (begin,))
        if count % 50 == 49:
            c.execute("delete from log where id < (select max(id) - 2000 from log)")
        c.execute("commit")
        took = time.perf_counter() - begin
        latencies.append(took)
        worst = max(worst, took)
        count += 1
        if rate:
            time.sleep(max(0.0, start + count / rate - time.perf_counter()))
    longest.append(worst)
    latencies.sort()
    longest.sort()
    print(json.dumps({
        "commits": count, "perSecond": round(count / seconds, 1),
        "p50": quantile(latencies, .5), "p99": quantile(latencies, .99), "p999": quantile(latencies, .999),
        "max": quantile(latencies, 1), "longestPerSecondP50": quantile(longest, .5), "longestPerSecondP99": quantile(longest, .99),
    }))


def stamp(path, count, pause, sync):
    c = sqlite3.connect(path, timeout=30, isolation_level=None)
    c.execute("pragma synchronous=" + sync)
    c.executescript(DDL)
    times = []
    for _ in range(count):
        c.execute("insert into log(t) values(0)")
        times.append(round(1000 * time.time(), 3))
        time.sleep(pause)
    print(json.dumps(times))


if __name__ == "__main__":
    what, arguments = sys.argv[1], sys.argv[2:]
    if what == "init":
        init(arguments[0], float(arguments[1]))
    elif what == "run":
        run(arguments[0], float(arguments[1]), float(arguments[2]), arguments[3])
    elif what == "stamp":
        stamp(arguments[0], int(arguments[1]), float(arguments[2]), arguments[3])
    else:
        sys.exit(__doc__)
