from __future__ import annotations

import json
import os
from typing import Any, Dict

from django.core.management.base import BaseCommand, CommandError, CommandParser
from sluice_core import NoSluice, position, primary, status

from django_sluice import conf


class Command(BaseCommand):
    help = "Shows what Sluice says of this project's databases: role, primary, position, and what is in the store."
    requires_system_checks: Any = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--database", help="Only the database with this alias.")
        parser.add_argument("--json", action="store_true", help="Print JSON.")

    def handle(self, *_args: Any, **options: Any) -> None:
        files = conf.databases()
        alias = options["database"]
        if alias is not None and alias not in files:
            raise CommandError(f"{alias} is no database under Sluice; these are: {', '.join(files) or 'none'}")
        found = {name: _describe(file) for name, file in files.items() if alias in (None, name)}
        if options["json"]:
            self.stdout.write(json.dumps(found, indent=2))
        else:
            for name, what in found.items():
                self.stdout.write(_line(name, what))
        lost = [name for name, what in found.items() if "error" in what]
        if lost:
            raise CommandError(f"not looked after: {', '.join(lost)}")


def _describe(file: str) -> Dict[str, Any]:
    here = position(file)
    name = primary(file)
    what: Dict[str, Any] = {
        "path": file,
        "role": "primary" if name is None else "replica",
        "primary": name,
        "position": None if here is None else f"{here.position:016x}",
        "checksum": None if here is None else f"{here.checksum:016x}",
    }
    try:
        node = status(file)
    except NoSluice as error:
        return {**what, "error": str(error)}
    paths = {os.path.realpath(each["path"]): each for each in node.get("databases", [])}
    database = paths.get(os.path.realpath(file), {})
    what["node"] = node.get("node")
    what["state"] = database.get("state")
    what["position"] = database.get("position") or what["position"]
    what["store"] = database.get("store")
    what["storeLagMs"] = database.get("storeLagMs")
    return what


def _line(alias: str, what: Dict[str, Any]) -> str:
    role = what["role"] if what["primary"] is None else f"replica of {what['primary'] or 'an unknown primary'}"
    parts = [f"{alias}: {what['path']}", role]
    if "error" in what:
        return "\n  ".join([*parts, what["error"]])
    parts.append(f"node {what['node']}, {what['state']}, position {what['position']}")
    lag = what["storeLagMs"]
    if what["store"] is not None:
        parts.append(f"store {what['store']}" + ("" if lag is None else f", behind by {lag / 1000:.1f} s"))
    return "\n  ".join(parts)
