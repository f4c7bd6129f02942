"""Requests on a replica: what is replayed, what stays, what can't be replayed any more."""

import asyncio
import logging
import threading
import unittest
from pathlib import Path
from unittest import mock

from django.contrib.auth.models import User
from django.core import signals
from django.db import connection, connections, transaction
from django.test import AsyncClient, Client, override_settings

import sluice_core
from django_sluice.middleware import COOKIE
from sluice_core import NotPrimary, NotReplayable

from . import support
from .shop import views
from .shop.models import Visit
from .support import at_once, replica


class Requests(unittest.TestCase):
    def setUp(self):
        views.effects.clear()
        self.addCleanup(self.clear)
        self.client = Client(raise_request_exception=False)
        self.async_client = AsyncClient(raise_request_exception=False)

    def clear(self):
        for folder in ("main", "second"):
            support.become_primary(folder)
        for alias in ("default", "second", "beside"):
            Visit.objects.using(alias).all().delete()

    def get(self, path, **options):
        with at_once():
            return self.client.get(path, **options)

    def get_async(self, path):
        async def get():
            return await self.async_client.get(path)

        with at_once():
            return asyncio.run(get())

    def assert_replayed(self, response, header=("Sluice-Replay", "primary")):
        self.assertEqual((response.status_code, response.headers.get(header[0])), (409, header[1]))

    def assert_local(self, response, text):
        self.assertEqual((response.status_code, response.content.decode()), (200, text))


class OnAReplica(Requests):
    def test_reads_stay(self):
        Visit.objects.create(name="there")
        with replica():
            self.assert_local(self.get("/read"), "1")
            self.assert_local(self.get_async("/read"), "1")
            self.assert_local(self.get("/read_async"), "1")
            self.assert_local(self.get_async("/read_async"), "1")

    def test_writes_in_a_get_are_replayed(self):
        with replica():
            for path in ("/write", "/write_async", "/write_swallowed", "/write_swallowed_async"):
                with self.subTest(path):
                    self.assert_replayed(self.get(path))
                    self.assert_replayed(self.get_async(path))
        self.assertEqual(Visit.objects.count(), 0)
        # What the proxy does then, on the primary.
        self.assert_local(self.get("/write"), "written")
        self.assert_local(self.get_async("/write_async?name=y"), "written")

    def test_a_post_is_tried_since_the_proxy_has_sorted_it(self):
        with replica():
            self.assert_local(self.client.post("/read"), "0")

    def test_swallowed_in_a_transaction_runs_nothing_after_the_commit(self):
        for path in ("/swallowed_in_atomic", "/swallowed_in_sql"):
            with self.subTest(path):
                with replica():
                    self.assert_replayed(self.get(path))
                self.assertEqual(views.effects, [])
                # The same connection, now on the primary: its next commit brings nothing of the other with it.
                with transaction.atomic():
                    Visit.objects.create(name="next")
                self.assertEqual(views.effects, [])
                Visit.objects.all().delete()
                self.assert_local(self.get(path), "committed")
                self.assertEqual(views.effects, ["on_commit"])
                Visit.objects.all().delete()
                views.effects.clear()

    def test_swallowed_around_a_savepoint(self):
        with replica():
            self.assert_replayed(self.get("/savepoints"))
        self.assert_local(self.get("/savepoints"), "0")
        self.assertEqual(Visit.objects.count(), 1)

    def test_swallowed_by_a_robust_signal(self):
        with replica():
            self.assert_replayed(self.get("/through_signal"))

    def test_transactions_that_only_read_stay_also_when_they_begin_immediate(self):
        connection.ensure_connection()
        for mode in (None, "IMMEDIATE"):
            with mock.patch.object(connections["default"], "transaction_mode", mode, create=True), replica():
                self.assert_local(self.get("/reads_in_atomic"), "0")

    def test_atomic_requests(self):
        with mock.patch.dict(connection.settings_dict, ATOMIC_REQUESTS=True):
            with replica():
                self.assert_local(self.get("/read"), "0")
                self.assert_replayed(self.get("/write"))
                self.assert_replayed(self.get("/write_swallowed"))
            self.assert_local(self.get("/write"), "written")

    def test_sessions(self):
        told = self.told()
        with replica():
            self.assert_replayed(self.get("/session"))
        # A session is saved after the view; Django's handling of errors sees that refusal, and is to keep still.
        self.assertEqual(told, [])
        self.assert_local(self.get("/session"), "visit 1")
        with replica():
            self.assert_replayed(self.get("/session"))
        self.assert_local(self.get("/session"), "visit 2")

    def told(self):
        """What `django.request` logs from now on."""
        told = []
        handler = logging.Handler()
        handler.emit = told.append
        logger = logging.getLogger("django.request")
        logger.addHandler(handler)
        self.addCleanup(logger.removeHandler, handler)
        return told

    def test_a_refusal_in_a_view_is_no_error_to_django(self):
        seen = []
        signals.got_request_exception.connect(receiver := lambda **_args: seen.append(1))
        self.addCleanup(signals.got_request_exception.disconnect, receiver)
        with replica():
            self.assert_replayed(self.get("/write"))
        self.assertEqual(seen, [])

    def test_last_login(self):
        User.objects.get_or_create(username="ann")
        with replica():
            self.assert_replayed(self.get("/log_in"))
        self.assertIsNone(User.objects.get(username="ann").last_login)
        self.assert_local(self.get("/log_in"), "logged in")
        self.assertIsNotNone(User.objects.get(username="ann").last_login)

    def test_admin(self):
        if not User.objects.filter(username="root").exists():
            User.objects.create_superuser("root", "root@localhost", "secret")
        login = {"username": "root", "password": "secret", "next": "/admin/"}
        with replica():
            self.assertEqual(self.get("/admin/login/").status_code, 200)
            self.assert_replayed(self.client.post("/admin/login/", login))
        self.assertEqual(self.client.post("/admin/login/", login).status_code, 302)
        with replica():
            # Logged in by the session that the primary has written.
            page = self.get("/admin/auth/user/")
            self.assertEqual((page.status_code, b"root@localhost" in page.content), (200, True))
            self.assert_replayed(self.client.post("/admin/logout/"))

    def test_temporary_tables(self):
        with replica():
            self.assert_local(self.get("/temporary"), "2")

    def test_views_that_say_so_run_on_the_primary(self):
        for path in ("/pays", "/pays_class"):
            with replica():
                self.assert_replayed(self.get(path))
            self.assertEqual(views.effects, [])
            self.assert_local(self.get(path), "paid")
            views.effects.clear()

    def test_several_databases_each_with_its_role(self):
        with replica("main"):
            self.assert_local(self.get("/second?name=a"), "written")
            self.assert_local(self.get("/beside?name=a"), "written")
            self.assert_replayed(self.get("/write"))
        with replica("second"):
            self.assert_replayed(self.get("/second?name=b"))
            self.assert_local(self.get("/write"), "written")
            self.assert_local(self.get("/beside?name=b"), "written")

    def test_propagated_exceptions_are_replayed_too(self):
        with override_settings(DEBUG_PROPAGATE_EXCEPTIONS=True), replica():
            self.assert_replayed(self.get("/session"))

    def test_promoted_and_demoted_between_requests(self):
        for _ in range(3):
            with replica():
                self.assert_replayed(self.get("/write"))
                self.assert_replayed(self.get_async("/write_async"))
            self.assert_local(self.get("/write"), "written")
            Visit.objects.all().delete()

    def test_many_threads(self):
        answers = []

        def work():
            client = Client(raise_request_exception=False)
            try:
                for path in ("/read", "/write", "/session", "/read_async", "/write_async") * 3:
                    answers.append((path, client.get(path).status_code))
            finally:
                connections.close_all()

        with replica(), at_once():
            threads = [threading.Thread(target=work) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self.assertEqual(len(answers), 6 * 15)
        for path, status in answers:
            self.assertEqual(status, 200 if path.startswith("/read") else 409, path)


class TooLate(Requests):
    def test_streams_of_reads(self):
        with replica():
            response = self.get("/stream")
            self.assertEqual(b"".join(response.streaming_content), b"first\n0\nlast\n")

    def test_a_write_in_a_stream_is_a_clear_error(self):
        with replica():
            response = self.get("/stream?write")
            self.assertEqual(response.status_code, 200)
            with at_once(), self.assertRaisesRegex(NotReplayable, "being streamed. Write before the first byte"):
                b"".join(response.streaming_content)
        self.assertEqual(Visit.objects.count(), 0)

    def test_a_write_in_an_async_stream(self):
        async def get():
            response = await self.async_client.get("/stream_async?write")
            return [chunk async for chunk in response.streaming_content]

        with replica(), at_once(), self.assertRaisesRegex(NotReplayable, "being streamed"):
            asyncio.run(get())
        self.assertEqual(len(asyncio.run(get())), 2)

    def test_what_is_committed_here_already_is_not_done_twice(self):
        with self.assertLogs("django.request", "ERROR") as logged:
            response = self.get_async("/commits_then_demoted")
        self.assertIn("can't be replayed: it committed changes here", logged.output[0])
        self.assertEqual((response.status_code, response.headers.get("Sluice-Replay")), (500, None))
        self.assertEqual(Visit.objects.count(), 1)


class BehindFly(Requests):
    FLY = ("fly-replay", "instance=node-b")

    def setUp(self):
        super().setUp()
        fly = override_settings(SLUICE_REPLAY="fly")
        fly.enable()
        self.addCleanup(fly.disable)

    def pos(self, position):
        Path(f"{support.BASE}/main/app.db-pos").write_text(f"{position:016x}/{0:016x}\n")

    def test_by_method_and_by_refusal(self):
        with replica():
            self.assert_local(self.get("/read"), "0")
            self.assert_replayed(self.get("/write"), self.FLY)
            # Not even tried.
            self.assert_replayed(self.client.post("/read"), self.FLY)
            self.assert_replayed(self.get_async("/write_async"), self.FLY)
        self.assert_local(self.client.post("/read"), "0")
        with override_settings(SLUICE_LOCAL_METHODS=["GET", "POST"]), replica():
            self.assert_local(Client().post("/read"), "0")

    def test_no_primary(self):
        with replica(primary=""):
            response = self.get("/write")
        self.assertEqual((response.status_code, response.headers["Retry-After"]), (503, "1"))

    def test_a_read_waits_for_what_the_client_wrote(self):
        with mock.patch("django_sluice.middleware.sync", return_value=2**32 + 5) as sync:
            self.assert_local(self.get("/write"), "written")
        sync.assert_called_once_with(str(support.BASE / "main/app.db"), "local", mock.ANY)
        cookie = self.client.cookies[COOKIE]
        self.assertEqual(cookie.value, "default-0000000100000005")
        self.assertEqual((cookie["httponly"], cookie["samesite"]), (True, "Lax"))
        self.addCleanup(Path(f"{support.BASE}/main/app.db-pos").unlink)
        self.pos(2**32 + 4)
        with replica():
            with override_settings(SLUICE_READ_TIMEOUT=0.1):
                behind = Client()
                behind.cookies = self.client.cookies
                self.assert_replayed(behind.get("/read"), self.FLY)
            with override_settings(SLUICE_READ_TIMEOUT=30):
                waiting = Client()
                waiting.cookies = self.client.cookies
                threading.Timer(0.2, self.pos, [2**32 + 5]).start()
                self.assert_local(waiting.get("/read"), "1")
        # The primary has it anyway; a read that changes nothing names no position.
        self.pos(0)
        answer = self.client.get("/read")
        self.assertNotIn(COOKIE, answer.cookies)

    def test_a_strange_cookie_is_ignored(self):
        for value in ("x", "default-xyz", "default-" + "z" * 16, "other-" + "0" * 16, "-.-"):
            self.client.cookies[COOKIE] = value
            with replica():
                self.assert_local(self.get("/read"), "0")

    def test_without_a_control_socket_there_is_no_position(self):
        with self.assertLogs("django_sluice", "WARNING"):
            self.assert_local(self.get("/write"), "written")
        self.assertNotIn(COOKIE, self.client.cookies)


class Outside(unittest.TestCase):
    """Commands and tasks, where no request can be replayed."""

    def test_refused_with_advice(self):
        with replica(), at_once(), self.assertRaisesRegex(NotPrimary, "sluice exec --on-primary"):
            Visit.objects.create(name="x")

    def test_a_raw_connection(self):
        connection.ensure_connection()
        with replica(), at_once(), self.assertRaises(NotPrimary):
            connection.connection.execute("DELETE FROM shop_visit")

    def test_executemany(self):
        with replica(), connection.cursor() as cursor:
            for rows in ([("a",), ("b",)], iter([("a",)])):
                with at_once(), self.assertRaises(NotPrimary):
                    cursor.executemany("INSERT INTO shop_visit(name) VALUES (%s)", rows)
            cursor.execute("PRAGMA user_version")
            with at_once(), self.assertRaises(NotPrimary):
                cursor.execute("PRAGMA user_version = 7")

    def test_role_in_python(self):
        with replica():
            self.assertTrue(sluice_core.is_replica(connection.settings_dict["NAME"]))
