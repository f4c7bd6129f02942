"""System checks: settings that don't go together, and such as can't work under Sluice."""

from __future__ import annotations

import os
import re
from typing import Any, Iterator, List

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning, register
from django.db import connections
from sluice_core.guard import file_of

from . import conf
from .backends.sqlite3.base import DatabaseWrapper

MIDDLEWARE = "django_sluice.middleware.SluiceMiddleware"
ENGINE = "django_sluice.backends.sqlite3"
#: They write to the database, or make others write, after the view.
WRITERS = (
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
)
TIMEOUT_LEAST_S = 1


@register("sluice")
def check_settings(**_options: Any) -> List[CheckMessage]:
    return [*_replay(), *_middleware(), *_databases()]


def _replay() -> Iterator[CheckMessage]:
    if conf.proxy() not in ("sluice", "fly"):
        yield Error(f"SLUICE_REPLAY is {conf.proxy()!r}.", hint='Write "sluice" or "fly".', id="sluice.E001")


def _middleware() -> Iterator[CheckMessage]:
    middleware = list(settings.MIDDLEWARE)
    guarded = [alias for alias in connections if isinstance(connections[alias], DatabaseWrapper)]
    if not guarded:
        yield Warning(
            "No database is under Sluice.",
            hint=f'Set ENGINE to "{ENGINE}" for each database that Sluice looks after.',
            id="sluice.W004",
        )
    if MIDDLEWARE not in middleware:
        yield Error(
            "SluiceMiddleware is missing: writes on a replica would be errors, not replays.",
            hint=f'Put "{MIDDLEWARE}" at the top of MIDDLEWARE.',
            id="sluice.E002",
        )
        return
    before = [name for name in WRITERS if name in middleware[: middleware.index(MIDDLEWARE)]]
    if before:
        yield Error(
            f"SluiceMiddleware comes after {', '.join(before)}.",
            hint="Put it before them: what they write after the view must be seen by it.",
            id="sluice.E003",
        )


def _databases() -> Iterator[CheckMessage]:
    for alias in connections:
        connection = connections[alias]
        if isinstance(connection, DatabaseWrapper):
            yield from _database(alias, connection.settings_dict)
        elif connection.vendor == "sqlite" and _is_looked_after(connection.settings_dict["NAME"]):
            yield Warning(
                f"Database {alias!r} is under Sluice, but its ENGINE is {connection.settings_dict['ENGINE']!r}.",
                hint=f'With "{ENGINE}" writes on a replica are replayed instead of waiting for a lock.',
                id="sluice.W001",
            )


def _database(alias: str, config: Any) -> Iterator[CheckMessage]:
    options = config.get("OPTIONS", {})
    timeout = options.get("timeout", 5)
    if timeout < TIMEOUT_LEAST_S:
        yield Warning(
            f"Database {alias!r} has a busy timeout of {timeout} s.",
            hint="Sluice takes the write lock for moments: give it a second at least.",
            id="sluice.W002",
        )
    commands = str(options.get("init_command", ""))
    mode = re.search(r"journal_mode\s*(?:=|\()\s*['\"]?(\w+)", commands, re.I)
    if mode and mode[1].lower() != "wal":
        yield Error(
            f"Database {alias!r}: the init_command asks for journal_mode {mode[1]}.",
            hint="Sluice keeps databases in WAL mode; leave it out, or write WAL.",
            id="sluice.E004",
        )
    if re.search(r"locking_mode\s*(?:=|\()\s*['\"]?exclusive", commands, re.I):
        yield Error(
            f"Database {alias!r}: locking_mode=EXCLUSIVE keeps Sluice out.", hint="Leave it out.", id="sluice.E005"
        )
    name = str(config["NAME"])
    if re.search(r"[?&](?:immutable=1|nolock=1|vfs=unix-(?:none|excl|dotfile))", name):
        yield Error(
            f"Database {alias!r}: {name} goes around SQLite's locks.",
            hint="Without immutable, nolock and another vfs.",
            id="sluice.E006",
        )
    if file_of(name, uri=True) is None:
        yield Warning(f"Database {alias!r} is in memory.", hint="Sluice looks after files.", id="sluice.W003")


def _is_looked_after(name: Any) -> bool:
    file = file_of(name, uri=True)
    if file is None:
        return False
    folder, base = os.path.split(os.path.realpath(file))
    return os.path.isdir(os.path.join(folder, f".{base}-sluice"))
