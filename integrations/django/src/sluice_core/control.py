"""Asks the Sluice process that looks after a database, over its control socket."""

from __future__ import annotations

import http.client
import json
import os
import socket
from pathlib import Path
from typing import Any, Dict, Optional

from .files import PathLike


class NoSluice(Exception):
    """Nobody looks after the database on this machine, or the process there doesn't answer."""


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("sluice", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def status(db_path: PathLike) -> Dict[str, Any]:
    """The node's ``GET /v1/status``. Raises NoSluice."""
    return _ask(db_path, "GET", "/v1/status", None, 10.0)


def sync(db_path: PathLike, wait: str = "local", timeout_s: float = 10.0) -> int:
    """Waits until all that is committed now is durable at ``wait``; its position. Raises NoSluice."""
    body = {"db": os.path.realpath(db_path), "wait": wait, "timeoutMs": int(timeout_s * 1000)}
    return int(_ask(db_path, "POST", "/v1/sync", body, timeout_s + 1)["position"], 16)


def _ask(db_path: PathLike, method: str, path: str, body: Optional[Dict[str, Any]], timeout_s: float) -> Dict[str, Any]:
    file = os.path.realpath(db_path)
    connection = _UnixConnection(_socket(file), timeout_s)
    try:
        text = None if body is None else json.dumps(body)
        connection.request(method, path, text, {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NoSluice(f"the process that looks after {file} doesn't answer: {error}") from error
    finally:
        connection.close()
    if response.status != 200:
        raise NoSluice(f"{answer.get('code', response.status)}: {answer.get('error', 'no reason given')}")
    return dict(answer)


def _socket(file: str) -> str:
    folder, name = os.path.split(file)
    note = Path(folder, f".{name}-sluice", "owner.json")
    try:
        owner = json.loads(note.read_text(encoding="utf-8"))
        if _start_time(int(owner["pid"])) == owner["startTime"]:
            return str(owner["socket"])
    except PermissionError as error:
        raise NoSluice(f"{note} is readable only for Sluice's own user") from error
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise NoSluice(f"nobody looks after {file} on this machine")


def _start_time(pid: int) -> Optional[str]:
    """Field 22 of /proc/PID/stat, which tells a process from a later one with its number."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="latin-1").rpartition(") ")[2].split(" ")[19]
    except OSError:
        return None
