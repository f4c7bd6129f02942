"""The core in Flask and in Starlette (which FastAPI is made of), where they are installed."""

import asyncio
import shutil
import tempfile
import unittest
from pathlib import Path

from sluice_core import NotReplayable, ReplayASGI, ReplayWSGI, connect

from .support import at_once, lock_held

try:
    import flask
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.responses import JSONResponse, StreamingResponse
    from starlette.routing import Route
except ImportError:
    flask = None


@unittest.skipIf(flask is None, "needs Flask and Starlette")
class Frameworks(unittest.TestCase):
    def setUp(self):
        self.dir = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.dir)
        self.file = self.dir / "app.db"
        with self.db() as db:
            db.execute("PRAGMA journal_mode = wal")
            db.execute("CREATE TABLE t(a)")
        db.close()

    def db(self):
        return connect(self.file, timeout=40)

    def rows(self, write):
        db = self.db()
        try:
            with db:
                if write:
                    db.execute("INSERT INTO t VALUES (1)")
                return {"rows": db.execute("SELECT count(*) FROM t").fetchone()[0]}
        finally:
            db.close()

    def demote(self):
        held = lock_held(self.file)
        held.__enter__()
        self.addCleanup(held.__exit__, None, None, None)
        (self.dir / ".primary").write_text("node-b\n")

    def test_flask(self):
        app = flask.Flask("site")
        app.get("/read", endpoint="read")(lambda: self.rows(False))
        app.get("/write", endpoint="write")(lambda: self.rows(True))
        app.logger.disabled = True
        app.wsgi_app = ReplayWSGI(app.wsgi_app)
        client = app.test_client()
        self.assertEqual(client.get("/write").get_json(), {"rows": 1})
        self.demote()
        with at_once():
            self.assertEqual(client.get("/read").get_json(), {"rows": 1})
            # Flask has made an error of it; it stays a replay.
            response = client.get("/write")
        self.assertEqual((response.status_code, response.headers["Sluice-Replay"]), (409, "primary"))

    def starlette(self):
        async def stream(_request):
            async def lines():
                yield b"first"
                self.rows(True)

            return StreamingResponse(lines())

        def swallow(_request):
            try:
                return JSONResponse(self.rows(True))
            except Exception:
                return JSONResponse("all is well")

        async def pass_on(request, call_next):
            return await call_next(request)

        routes = [
            Route("/read", lambda _request: JSONResponse(self.rows(False))),
            Route("/write", lambda _request: JSONResponse(self.rows(True))),
            Route("/swallow", swallow),
            Route("/stream", stream),
        ]
        return Starlette(
            routes=routes,
            middleware=[Middleware(ReplayASGI, proxy="fly"), Middleware(BaseHTTPMiddleware, dispatch=pass_on)],
        )

    def ask(self, app, path):
        """Status, headers and body of an answer."""
        sent = []

        async def receive():
            await asyncio.sleep(30)

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [],
            "state": {},
        }
        try:
            asyncio.run(app(scope, receive, send))
        finally:
            self.sent = sent
        body = b"".join(message.get("body", b"") for message in sent[1:])
        return sent[0]["status"], {k.decode(): v.decode() for k, v in sent[0]["headers"]}, body

    def test_starlette(self):
        app = self.starlette()
        self.assertEqual(self.ask(app, "/write")[2], b'{"rows":1}')
        self.demote()
        with at_once():
            self.assertEqual(self.ask(app, "/read")[2], b'{"rows":1}')
            for path in ("/write", "/swallow"):
                status, headers, _body = self.ask(app, path)
                self.assertEqual((status, headers["fly-replay"]), (409, "instance=node-b"), path)

    def test_a_stream_of_starlette_that_writes_too_late(self):
        app = self.starlette()
        self.demote()
        with at_once(), self.assertRaises(BaseException) as caught:
            self.ask(app, "/stream")
        self.assertEqual(self.sent[0]["status"], 200)
        errors = [caught.exception]
        while hasattr(errors[-1], "exceptions"):
            errors.append(errors[-1].exceptions[0])
        self.assertIsInstance(errors[-1], NotReplayable)
