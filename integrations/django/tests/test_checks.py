import copy
import io
import json
import os
import unittest
from pathlib import Path
from unittest import mock

from django.core.management import CommandError, call_command
from django.db import ConnectionHandler
from django.test import override_settings

from django_sluice import checks, conf
from django_sluice.management.commands import sluice_status

from . import settings as project
from . import support
from .support import replica

MIDDLEWARE = "django_sluice.middleware.SluiceMiddleware"


class Checks(unittest.TestCase):
    def ids(self, databases=None, **settings):
        """The ids of what the checks say of the project with these changes."""
        handler = ConnectionHandler(copy.deepcopy({**project.DATABASES, **(databases or {})}))
        with (
            mock.patch.object(checks, "connections", handler),
            mock.patch.object(conf, "connections", handler),
            override_settings(**settings),
        ):
            return [message.id for message in checks.check_settings()]

    def database(self, **changes):
        return {"default": {**project.DATABASES["default"], **changes}}

    def options(self, **options):
        return self.database(OPTIONS=options)

    def test_nothing_to_say(self):
        self.assertEqual(self.ids(), [])
        self.assertEqual(self.ids(self.database(ATOMIC_REQUESTS=True, CONN_MAX_AGE=600)), [])
        fine = "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA locking_mode=NORMAL"
        self.assertEqual(self.ids(self.options(init_command=fine, transaction_mode="IMMEDIATE")), [])

    def test_replay(self):
        self.assertEqual(self.ids(SLUICE_REPLAY="fly"), [])
        self.assertEqual(self.ids(SLUICE_REPLAY="nginx"), ["sluice.E001"])

    def test_middleware(self):
        others = [name for name in project.MIDDLEWARE if name != MIDDLEWARE]
        self.assertEqual(self.ids(MIDDLEWARE=others), ["sluice.E002"])
        self.assertEqual(self.ids(MIDDLEWARE=[*others, MIDDLEWARE]), ["sluice.E003"])
        security = "django.middleware.security.SecurityMiddleware"
        self.assertEqual(self.ids(MIDDLEWARE=[security, MIDDLEWARE, *others]), [])

    def test_pragmas(self):
        for command, expected in (
            ("PRAGMA journal_mode=DELETE", ["sluice.E004"]),
            ("PRAGMA synchronous=FULL; pragma journal_mode('persist')", ["sluice.E004"]),
            ("PRAGMA locking_mode = exclusive", ["sluice.E005"]),
        ):
            self.assertEqual(self.ids(self.options(init_command=command)), expected, command)

    def test_names_that_go_around_the_locks(self):
        for query in ("immutable=1", "mode=rw&nolock=1", "vfs=unix-none", "vfs=unix-excl"):
            self.assertEqual(self.ids(self.database(NAME=f"file:/data/app.db?{query}")), ["sluice.E006"], query)
        self.assertEqual(self.ids(self.database(NAME="file:/data/app.db?mode=rw")), [])

    def test_timeout(self):
        self.assertEqual(self.ids(self.options(timeout=0.2)), ["sluice.W002"])
        self.assertEqual(self.ids(self.options()), [])

    def test_in_memory(self):
        self.assertEqual(self.ids(self.database(NAME=":memory:")), ["sluice.W003"])

    def test_engine(self):
        plain = "django.db.backends.sqlite3"
        second = {"second": {**project.DATABASES["second"], "ENGINE": plain}}
        self.assertEqual(self.ids({**self.database(ENGINE=plain), **second}), ["sluice.W004"])
        # It shows that Sluice looks after this one.
        looked_after = support.BASE / "main" / ".beside.db-sluice"
        looked_after.mkdir()
        self.addCleanup(looked_after.rmdir)
        self.assertEqual(self.ids(), ["sluice.W001"])

    def test_they_are_registered(self):
        with override_settings(SLUICE_REPLAY="nginx"), self.assertRaisesRegex(Exception, "sluice.E001"):
            call_command("check")


class Status(unittest.TestCase):
    def run_command(self, **options):
        out = io.StringIO()
        try:
            call_command("sluice_status", stdout=out, **options)
            return out.getvalue(), None
        except CommandError as error:
            return out.getvalue(), str(error)

    def node(self, file):
        database = {"path": os.path.realpath(file), "state": "protected", "position": "0000000200000009"}
        return {"node": "node-a", "databases": [{**database, "store": "file:///store", "storeLagMs": 1500}]}

    def test_looked_after(self):
        with mock.patch.object(sluice_status, "status", self.node), replica("main"):
            text, error = self.run_command()
            self.assertIsNone(error)
            self.assertRegex(text, r"default: .*/main/app\.db\n  replica of node-b\n")
            self.assertIn("node node-a, protected, position 0000000200000009", text)
            self.assertIn("store file:///store, behind by 1.5 s", text)
            self.assertRegex(text, r"second: .*/second/app\.db\n  primary\n")
            data = json.loads(self.run_command(json=True, database="default")[0])
        self.assertEqual(list(data), ["default"])
        self.assertEqual((data["default"]["role"], data["default"]["primary"]), ("replica", "node-b"))

    def test_not_looked_after(self):
        Path(support.BASE, "main/app.db-pos").write_text("0000000100000002/00000000000000ff\n")
        self.addCleanup(Path(support.BASE, "main/app.db-pos").unlink)
        text, error = self.run_command(json=True)
        data = json.loads(text)
        self.assertEqual(error, "not looked after: default, second")
        self.assertEqual((data["default"]["position"], data["default"]["role"]), ("0000000100000002", "primary"))
        self.assertIn("nobody looks after", data["default"]["error"])

    def test_an_unknown_alias(self):
        self.assertIn("these are: default, second", self.run_command(database="beside")[1])
