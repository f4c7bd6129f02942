"""A table of rows over HTTP: rows.py DB PORT. POST /ID inserts a row, GET / lists the ids."""

import json
import sqlite3
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

path, port = sys.argv[1], int(sys.argv[2])


class Rows(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, work):
        db = sqlite3.connect(path, timeout=10, isolation_level=None)
        try:
            body, status = json.dumps(work(db)).encode(), 200
        except sqlite3.Error as error:
            body, status = str(error).encode(), 500
        finally:
            db.close()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length") or 0))
        self.answer(lambda db: db.execute("insert into t(x) values(?)", (self.path[1:],)).fetchall())

    def do_GET(self):
        self.answer(lambda db: [x for (x,) in db.execute("select x from t where x is not null")])

    def log_message(self, *words):
        pass


ThreadingHTTPServer.daemon_threads = True
ThreadingHTTPServer(("127.0.0.1", port), Rows).serve_forever()
