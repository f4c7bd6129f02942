"""Views that write where one wouldn't expect it. Each answers with what it got done."""

import contextlib

from asgiref.sync import sync_to_async
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.dispatch import Signal
from django.http import HttpResponse, StreamingHttpResponse
from django.views import View

from django_sluice import primary_required

from .models import Visit

#: What views did beside the database.
effects = []
written = Signal()


def read(request):
    return HttpResponse(str(Visit.objects.count()))


async def read_async(request):
    return HttpResponse(str(await Visit.objects.acount()))


def write(request):
    Visit.objects.create(name=request.GET.get("name", "x"))
    return HttpResponse("written")


async def write_async(request):
    await Visit.objects.acreate(name=request.GET.get("name", "x"))
    return HttpResponse("written")


def write_swallowed(request):
    with contextlib.suppress(Exception):
        Visit.objects.create(name="swallowed")
    return HttpResponse("all is well")


async def write_swallowed_async(request):
    with contextlib.suppress(Exception):
        await Visit.objects.acreate(name="swallowed")
    return HttpResponse("all is well")


def swallowed_in_atomic(request):
    with transaction.atomic():
        transaction.on_commit(lambda: effects.append("on_commit"))
        with contextlib.suppress(Exception):
            Visit.objects.create(name="swallowed")
    return HttpResponse("committed")


def swallowed_in_sql(request):
    """Nothing of Django's notices that the transaction is doomed."""
    with transaction.atomic(), connection.cursor() as cursor:
        transaction.on_commit(lambda: effects.append("on_commit"))
        with contextlib.suppress(Exception):
            cursor.execute("INSERT INTO shop_visit(name) VALUES ('swallowed')")
    return HttpResponse("committed")


def savepoints(request):
    with transaction.atomic():
        before = Visit.objects.count()
        with contextlib.suppress(Exception), transaction.atomic():
            Visit.objects.create(name="inner")
        return HttpResponse(f"{before}")


def reads_in_atomic(request):
    with transaction.atomic():
        return HttpResponse(str(Visit.objects.count()))


def through_signal(request):
    results = written.send_robust(sender=None)
    return HttpResponse(f"{len(results)} receivers")


def on_signal(**_kwargs):
    Visit.objects.create(name="signal")


written.connect(on_signal)


def session(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(f"visit {request.session['visits']}")


def log_in(request):
    login(request, User.objects.get(username="ann"))
    return HttpResponse("logged in")


def second(request):
    Visit.objects.using("second").create(name=request.GET["name"])
    return HttpResponse("written")


def beside(request):
    Visit.objects.using("beside").create(name=request.GET["name"])
    return HttpResponse("written")


def temporary(request):
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE IF NOT EXISTS scratch(a)")
        cursor.executemany("INSERT INTO scratch VALUES (%s)", [(1,), (2,)])
        cursor.execute("SELECT count(*) FROM scratch")
        (rows,) = cursor.fetchone()
        cursor.execute("DROP TABLE scratch")
    return HttpResponse(str(rows))


def stream(request):
    def lines():
        yield b"first\n"
        yield b"%d\n" % Visit.objects.count()
        if "write" in request.GET:
            Visit.objects.create(name="streamed")
        yield b"last\n"

    return StreamingHttpResponse(lines())


async def stream_async(request):
    async def lines():
        yield b"first\n"
        if "write" in request.GET:
            await Visit.objects.acreate(name="streamed")
        yield b"last\n"

    return StreamingHttpResponse(lines())


@primary_required
def pays(request):
    effects.append("paid")
    return HttpResponse("paid")


@primary_required
class Pays(View):
    def get(self, request):
        effects.append("paid")
        return HttpResponse("paid")


async def commits_then_demoted(request):
    """Writes as the primary; then the node is a replica, and it wants to write again."""
    from tests import support

    await sync_to_async(Visit.objects.create)(name="before")
    support.become_replica("main")
    await Visit.objects.acreate(name="after")
    return HttpResponse("written")
