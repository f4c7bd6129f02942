import http.server
import json
import os
import shutil
import socket
import socketserver
import sqlite3
import tempfile
import threading
import unittest
from pathlib import Path

import sluice_core
from sluice_core import Attempt, NoSluice, NotPrimary, NotReplayable, Position, connect, current, replay_answer
from sluice_core.guard import file_of

from .support import at_once, lock_held


class Files(unittest.TestCase):
    def setUp(self):
        self.dir = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.dir)
        self.db = self.dir / "app.db"

    def test_role_and_primary(self):
        self.assertFalse(sluice_core.is_replica(self.db))
        self.assertIsNone(sluice_core.primary(self.db))
        (self.dir / ".primary").write_text("node-b\n")
        self.assertTrue(sluice_core.is_replica(self.db))
        self.assertEqual(sluice_core.primary(self.db), "node-b")
        with self.assertRaises(NotPrimary) as caught:
            sluice_core.require_primary(str(self.db))
        self.assertEqual((caught.exception.database, caught.exception.primary), (str(self.db), "node-b"))

    def test_a_link_to_the_database_stands_for_its_directory(self):
        (self.dir / ".primary").write_text("node-b\n")
        self.db.touch()
        with tempfile.TemporaryDirectory() as elsewhere:
            link = Path(elsewhere, "link.db")
            link.symlink_to(self.db)
            self.assertTrue(sluice_core.is_replica(link))

    def test_a_command_that_borrows_the_lock_may_write(self):
        (self.dir / ".primary").write_text("node-b\n")
        os.environ["SLUICE_ON_PRIMARY"] = "1"
        self.addCleanup(os.environ.pop, "SLUICE_ON_PRIMARY")
        self.assertFalse(sluice_core.is_replica(self.db))
        self.assertIsNone(sluice_core.primary(self.db))

    def test_position(self):
        self.assertIsNone(sluice_core.position(self.db))
        Path(f"{self.db}-pos").write_text("0000000300000007/00000000000000ff\n")
        self.assertEqual(sluice_core.position(self.db), Position(3 * 2**32 + 7, 255))
        self.assertEqual(str(sluice_core.position(self.db)), "0000000300000007/00000000000000ff")
        Path(f"{self.db}-pos").write_text("00000003")
        self.assertIsNone(sluice_core.position(self.db))

    def test_the_file_behind_a_name(self):
        for name, uri, file in (
            ("/a/b.db", False, "/a/b.db"),
            (Path("/a/b.db"), False, "/a/b.db"),
            ("file:/a/b%20c.db?mode=rw", True, "/a/b c.db"),
            ("file:b.db", True, "b.db"),
            ("file:/a/b.db", False, "file:/a/b.db"),
            (":memory:", False, None),
            ("", False, None),
            ("file::memory:?cache=shared", True, None),
            ("file:shared?mode=memory&cache=shared", True, None),
        ):
            self.assertEqual(file_of(name, uri), file, name)


class Refused(unittest.TestCase):
    """What a connection refuses on a replica, at once, with the write lock in other hands."""

    def setUp(self):
        self.dir = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.dir)
        self.file = self.dir / "app.db"
        self.db = connect(self.file, isolation_level=None, timeout=40)
        self.addCleanup(self.db.close)
        self.db.execute("PRAGMA journal_mode = wal")
        self.db.executescript(
            "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES (1, 'one');"
            "CREATE VIEW v AS SELECT * FROM t;"
            "CREATE TRIGGER vi INSTEAD OF INSERT ON v BEGIN INSERT INTO t(b) VALUES (new.b); END;"
        )

    def demote(self):
        held = lock_held(self.file)
        held.__enter__()
        self.addCleanup(held.__exit__, None, None, None)
        (self.dir / ".primary").write_text("node-b\n")

    def refused(self, sql, *args):
        with self.subTest(sql), at_once(), self.assertRaises(NotPrimary):
            self.db.execute(sql, *args)

    def test_every_kind_of_write(self):
        # Compiled and cached while the node is the primary.
        self.db.execute("INSERT INTO t(b) VALUES (?)", ("two",))
        self.demote()
        self.refused("INSERT INTO t(b) VALUES (?)", ("two",))
        for sql in (
            "insert into t(b) values ('x')",
            "  /* a ; comment */ -- and another\n INSERT INTO t(b) VALUES ('x')",
            "REPLACE INTO t VALUES (1, 'x')",
            "INSERT INTO t(b) VALUES ('x') RETURNING a",
            "UPDATE t SET b = 'x' WHERE a = 99",
            "DELETE FROM t",
            "WITH x AS (SELECT 1) INSERT INTO t(b) SELECT * FROM x",
            "INSERT INTO v(b) VALUES ('x')",
            "CREATE TABLE u(a)",
            "CREATE INDEX i ON t(b)",
            "ALTER TABLE t ADD COLUMN c",
            "DROP TABLE t",
            "ANALYZE",
            "VACUUM",
            " /* now */ vacuum main",
            "BEGIN IMMEDIATE",
            "begin exclusive",
            "PRAGMA user_version = 5",
            "PRAGMA main.application_id(5)",
            "PRAGMA journal_mode = delete",
            "pragma main.journal_mode('TRUNCATE')",
            "PRAGMA incremental_vacuum",
        ):
            self.refused(sql)
        for many in ([("x",), ("y",)], iter([("x",)])):
            with at_once(), self.assertRaises(NotPrimary):
                self.db.executemany("INSERT INTO t(b) VALUES (?)", many)
        with at_once(), self.assertRaises(NotPrimary):
            self.db.executescript("SELECT 1; INSERT INTO t(b) VALUES ('x');")
        with at_once(), self.assertRaises(NotPrimary):
            self.db.cursor().execute("DELETE FROM t")
        # Below everything of this package, SQLite itself refuses, as fast.
        with at_once(), self.assertRaisesRegex(sqlite3.OperationalError, "readonly"):
            sqlite3.Connection.execute(self.db, "DELETE FROM t")

    def test_what_only_reads(self):
        self.demote()
        for sql, rows in (
            ("SELECT a, b FROM t", [(1, "one")]),
            ("WITH x AS (SELECT a FROM t) SELECT a FROM x", [(1,)]),
            ("VALUES (1)", [(1,)]),
            ("PRAGMA user_version", [(0,)]),
            ("PRAGMA journal_mode", [("wal",)]),
            ("PRAGMA journal_mode = WAL", [("wal",)]),
            ("PRAGMA foreign_keys = ON", []),
            ("PRAGMA synchronous = NORMAL", []),
            ("PRAGMA optimize", []),
            ("BEGIN", []),
            ("SAVEPOINT s", []),
            ("RELEASE s", []),
            ("COMMIT", []),
        ):
            with self.subTest(sql), at_once():
                self.assertEqual(self.db.execute(sql).fetchall(), rows)
        self.assertGreater(len(self.db.execute("EXPLAIN INSERT INTO t(b) VALUES ('x')").fetchall()), 1)
        self.db.executemany("INSERT INTO t(b) VALUES (?)", [])

    def test_temporary_tables_and_other_databases_can_be_written(self):
        with tempfile.TemporaryDirectory() as elsewhere:
            self.db.execute("ATTACH ? AS o", (f"{elsewhere}/other.db",))
            self.db.execute("CREATE TABLE o.t(a)")
            self.demote()
            with at_once():
                self.db.execute("CREATE TEMP TABLE s AS SELECT b FROM t")
                self.db.execute("INSERT INTO s VALUES (?)", ("x",))
                self.db.executemany("INSERT INTO s VALUES (:b)", iter([{"b": "y"}, {"b": "z"}]))
                self.assertEqual(self.db.execute("SELECT b FROM s").fetchall(), [("one",), ("x",), ("y",), ("z",)])
                self.db.execute("INSERT INTO o.t VALUES (1)")
                self.db.execute("VACUUM INTO ?", (f"{elsewhere}/copy.db",))
            self.refused("INSERT INTO t(b) SELECT b FROM s")
            # A write behind a temporary table's back.
            self.db.execute("CREATE TEMP TRIGGER r AFTER INSERT ON s BEGIN INSERT INTO t(b) VALUES (new.b); END")
            self.refused("INSERT INTO s VALUES ('x')")
            # The other one is a replica, too.
            Path(elsewhere, ".primary").write_text("node-b\n")
            self.refused("INSERT INTO o.t VALUES (1)")
            self.db.execute("DETACH o")

    def test_a_change_of_role_counts_at_the_next_statement(self):
        (self.dir / ".primary").write_text("node-b\n")
        self.refused("INSERT INTO t(b) VALUES ('x')")
        (self.dir / ".primary").unlink()
        self.db.execute("INSERT INTO t(b) VALUES ('x')")
        (self.dir / ".primary").write_text("node-b\n")
        self.refused("INSERT INTO t(b) VALUES ('x')")
        self.assertEqual(self.db.execute("SELECT count(*) FROM t").fetchone(), (2,))

    def test_what_the_user_had_set_comes_back(self):
        self.db.execute("PRAGMA query_only = ON")
        (self.dir / ".primary").write_text("node-b\n")
        self.db.execute("SELECT 1")
        (self.dir / ".primary").unlink()
        with self.assertRaisesRegex(sqlite3.OperationalError, "readonly"):
            self.db.execute("DELETE FROM t")

    def test_demoted_while_it_waits_for_the_lock(self):
        db = connect(self.file, isolation_level=None, timeout=1)
        self.addCleanup(db.close)
        with lock_held(self.file):
            threading.Timer(0.2, (self.dir / ".primary").write_text, ["node-b\n"]).start()
            with self.assertRaises(NotPrimary):
                db.execute("DELETE FROM t")

    def test_locked_by_somebody_else_on_a_primary_stays_what_it_is(self):
        db = connect(self.file, isolation_level=None, timeout=0)
        self.addCleanup(db.close)
        with lock_held(self.file), self.assertRaisesRegex(sqlite3.OperationalError, "locked"):
            db.execute("DELETE FROM t")

    def test_a_transaction_in_which_a_write_was_refused_is_not_committed(self):
        self.demote()
        self.db.execute("BEGIN")
        self.refused("DELETE FROM t")
        with self.assertRaises(NotPrimary):
            self.db.commit()
        self.assertFalse(self.db.in_transaction)
        with self.assertRaises(NotPrimary), self.db:
            self.db.execute("BEGIN")
            self.refused("DELETE FROM t")
        self.db.execute("BEGIN")
        self.db.commit()

    def test_sqlite3_in_its_own_transactions(self):
        db = connect(self.file, timeout=40)
        self.addCleanup(db.close)
        self.demote()
        with at_once(), self.assertRaises(NotPrimary):
            db.execute("DELETE FROM t")
        self.assertEqual(db.execute("SELECT count(*) FROM t").fetchone(), (1,))

    def test_what_was_committed_before_cannot_be_replayed(self):
        for commits, expected in ((True, NotReplayable), (False, NotPrimary)):
            attempt = Attempt()
            token = current.set(attempt)
            self.db.execute("BEGIN IMMEDIATE")
            self.db.execute("INSERT INTO t(b) VALUES ('x')")
            if commits:
                self.db.commit()
            (self.dir / ".primary").write_text("node-b\n")
            with self.assertRaises(expected):
                self.db.execute("DELETE FROM t")
            self.assertEqual(attempt.must_replay, not commits)
            if self.db.in_transaction:
                self.db.rollback()
            (self.dir / ".primary").unlink()
            current.reset(token)

    def test_committed_before_the_transaction_in_which_it_is_refused(self):
        attempt = Attempt()
        token = current.set(attempt)
        self.addCleanup(current.reset, token)
        self.db.execute("INSERT INTO t(b) VALUES ('committed')")
        self.db.execute("BEGIN IMMEDIATE")
        (self.dir / ".primary").write_text("node-b\n")
        with self.assertRaises(NotReplayable):
            self.db.execute("DELETE FROM t")
        self.assertFalse(attempt.must_replay)

    def test_what_was_rolled_back_is_no_obstacle(self):
        attempt = Attempt()
        token = current.set(attempt)
        self.addCleanup(current.reset, token)
        self.db.execute("BEGIN IMMEDIATE")
        self.db.execute("INSERT INTO t(b) VALUES ('x')")
        (self.dir / ".primary").write_text("node-b\n")
        self.refused("DELETE FROM t")
        with self.assertRaises(NotPrimary):
            self.db.commit()
        # Whoever swallows all of it, and tries again.
        self.refused("DELETE FROM t")
        self.assertTrue(attempt.must_replay)

    def test_optimize_is_the_primarys_work(self):
        self.db.execute("CREATE INDEX i ON t(b)")
        self.db.execute("ANALYZE")
        self.db.executemany("INSERT INTO t(b) VALUES (?)", [(f"{i}",) for i in range(2000)])
        self.db.close()
        self.db = connect(self.file, isolation_level=None, timeout=40)
        self.demote()
        self.db.execute("SELECT a FROM t WHERE b = 'one'").fetchall()
        with at_once():
            self.db.execute("PRAGMA optimize").fetchall()
            self.db.execute("pragma main.optimize(0xfffe)").fetchall()

    def test_temporary_rows_on_a_replica_do_not_count_as_committed(self):
        self.demote()
        attempt = Attempt()
        token = current.set(attempt)
        self.addCleanup(current.reset, token)
        self.db.execute("CREATE TEMP TABLE s(a)")
        self.db.execute("INSERT INTO s VALUES (1)")
        self.refused("DELETE FROM t")
        self.assertTrue(attempt.must_replay)

    def test_an_r_tree_is_read(self):
        try:
            self.db.execute("CREATE VIRTUAL TABLE r USING rtree(id, x0, x1)")
        except sqlite3.OperationalError:
            self.skipTest("SQLite without R-trees")
        self.demote()
        self.assertEqual(self.db.execute("SELECT * FROM r").fetchall(), [])
        self.refused("INSERT INTO r VALUES (1, 2, 3)")

    def test_in_memory_is_nobodys_replica(self):
        db = connect(":memory:")
        self.addCleanup(db.close)
        db.execute("CREATE TABLE t(a)")
        db.executemany("INSERT INTO t VALUES (?)", [(1,)])


class Answers(unittest.TestCase):
    def test_headers(self):
        error = NotPrimary("/data/app.db", "node-b", "DELETE\n  FROM t")
        self.assertEqual(replay_answer(error).headers["Sluice-Replay"], "primary")
        self.assertEqual(replay_answer(error, "fly").headers["fly-replay"], "instance=node-b")
        self.assertIn("DELETE FROM t", str(error))
        nobody = replay_answer(NotPrimary("/data/app.db"), "fly")
        self.assertEqual((nobody.status, nobody.headers["Retry-After"]), (503, "1"))


class Control(unittest.TestCase):
    """Against a stand-in for the control socket, with an owner's note as Sluice writes it."""

    def setUp(self):
        self.dir = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.dir)
        self.db = self.dir / "app.db"
        self.note = self.dir / ".app.db-sluice" / "owner.json"
        self.note.parent.mkdir()

    def serve(self):
        asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def address_string(self):
                return "socket"

            def log_message(self, *_args):
                pass

            def _answer(self, status, answer):
                body = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_GET(self):
                asked.append(self.path)
                self._answer(200, {"node": "node-a", "databases": []})

            def do_POST(self):
                asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self._answer(200, {"position": "0000000100000002"})

        class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
            daemon_threads = True

        server = Server(str(self.dir / "control.sock"), Handler)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        stat = Path(f"/proc/{os.getpid()}/stat").read_text()
        owner = {"pid": os.getpid(), "startTime": stat.rpartition(") ")[2].split(" ")[19]}
        self.note.write_text(json.dumps({**owner, "socket": str(self.dir / "control.sock")}))
        return asked

    def test_status_and_sync(self):
        asked = self.serve()
        self.assertEqual(sluice_core.status(self.db)["node"], "node-a")
        self.assertEqual(sluice_core.sync(self.db, "local"), 2**32 + 2)
        self.assertEqual(asked, ["/v1/status", {"db": str(self.db), "wait": "local", "timeoutMs": 10000}])

    def test_nobody_there(self):
        with self.assertRaisesRegex(NoSluice, "nobody looks after"):
            sluice_core.status(self.db)
        self.note.write_text(json.dumps({"pid": os.getpid(), "startTime": "1", "socket": "/nowhere"}))
        with self.assertRaisesRegex(NoSluice, "nobody looks after"):
            sluice_core.status(self.db)
        with socket.socket(socket.AF_UNIX) as deaf:
            deaf.bind(str(self.dir / "deaf.sock"))
            self.serve()
            owner = json.loads(self.note.read_text())
            self.note.write_text(json.dumps({**owner, "socket": str(self.dir / "deaf.sock")}))
            with self.assertRaisesRegex(NoSluice, "doesn't answer"):
                sluice_core.status(self.db)


class Wsgi(unittest.TestCase):
    def call(self, app, proxy="sluice"):
        heads = []
        body = sluice_core.ReplayWSGI(app, proxy)({}, lambda *head: heads.append(head))
        return heads, body

    def test_replayed_although_the_application_made_an_error_of_it(self):
        def app(_environ, start_response):
            sluice_core.refusal(NotPrimary("/data/app.db", "node-b"))
            start_response("500 Internal Server Error", [])
            return [b"oops"]

        heads, body = self.call(app, "fly")
        self.assertEqual([head[0] for head in heads], ["409 Conflict"])
        self.assertIn(("fly-replay", "instance=node-b"), heads[0][1])
        self.assertNotIn(b"oops", b"".join(body))

    def test_refused_by_a_lazy_body_before_its_first_bytes(self):
        def app(_environ, start_response):
            start_response("200 OK", [])
            yield b""
            raise sluice_core.refusal(NotPrimary("/data/app.db", "node-b"))

        heads, _body = self.call(app)
        self.assertEqual([head[0] for head in heads], ["409 Conflict"])

    def test_too_late_in_a_body_that_is_being_sent(self):
        def app(_environ, start_response):
            start_response("200 OK", [])
            yield b"first"
            raise sluice_core.refusal(NotPrimary("/data/app.db", "node-b"))

        heads, body = self.call(app)
        self.assertEqual([head[0] for head in heads], ["200 OK"])
        self.assertEqual(next(body), b"first")
        with self.assertRaisesRegex(NotReplayable, "being streamed"):
            next(body)
        self.assertIsNone(current.get())

    def test_another_exception_stays(self):
        def app(_environ, _start_response):
            raise RuntimeError("no")

        with self.assertRaises(RuntimeError):
            self.call(app)
