"""The answer that has a request replayed on the primary."""

from __future__ import annotations

from typing import Dict, Literal, NamedTuple

from .attempt import NotPrimary

Proxy = Literal["sluice", "fly"]


class Answer(NamedTuple):
    status: int
    reason: str
    headers: Dict[str, str]
    body: bytes


def replay_answer(error: NotPrimary, proxy: Proxy = "sluice") -> Answer:
    """
    What an application answers: the proxy in front acts on the header and drops the rest, which is for those who see it
    because no proxy is there. Fly.io's proxy must be told which machine; while no primary is known the answer is 503.
    """
    headers = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}
    if proxy == "fly" and not error.primary:
        headers["Retry-After"] = "1"
        return Answer(503, "Service Unavailable", headers, b"There is no primary just now; try again.\n")
    if proxy == "fly":
        headers["fly-replay"] = f"instance={error.primary}"
    else:
        headers["Sluice-Replay"] = "primary"
    body = "This request must run on the primary, where the proxy in front of this application replays it.\n"
    return Answer(409, "Conflict", headers, body.encode())
