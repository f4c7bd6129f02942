"""Turns a refused write into the answer on which the proxy replays the request on the primary."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, AsyncIterator, Dict, Iterator, Optional

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from sluice_core import Attempt, NoSluice, NotPrimary, current, position, primary, replay_answer, sync

from . import conf

COOKIE = "sluice_position"
#: A client that stays away for longer finds every replica up to date.
_COOKIE_AGE_S = 300
_POLL_S = 0.005
_SYNC_LIMIT_S = 2.0

logger = logging.getLogger("django_sluice")


class SluiceMiddleware:
    """
    Belongs before every middleware that writes (sessions, authentication, messages). Works with sync and async views.

    A request: [replayed at once, by its method or ``primary_required``] -> [waits until this replica has what the client
    wrote] -> the view -> replayed if any write was refused meanwhile, whatever became of the exception.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)
        self.proxy = conf.proxy()
        self.databases = conf.databases()
        self.local_methods = conf.local_methods()
        self.read_your_writes = conf.read_your_writes()
        self.read_timeout_s = conf.read_timeout_s()

    def __call__(self, request: HttpRequest) -> Any:
        if self.is_async:
            return self._answer_async(request)
        early = self._early(request)
        if early is not None:
            return early
        behind = self._behind(request)
        while behind and self._must_wait(behind):
            time.sleep(_POLL_S)
        late = self._replay_for(request) if behind and not _has(behind) else None
        if late is not None:
            return late
        attempt = Attempt()
        token = current.set(attempt)
        try:
            response = self.get_response(request)
        except NotPrimary as error:
            # With DEBUG_PROPAGATE_EXCEPTIONS, or from a middleware that Django doesn't guard.
            return self._replay(error)
        finally:
            current.reset(token)
        return self._finish(request, response, attempt, self._positions(attempt))

    async def _answer_async(self, request: HttpRequest) -> HttpResponseBase:
        early = self._early(request)
        if early is not None:
            return early
        behind = self._behind(request)
        while behind and self._must_wait(behind):
            await asyncio.sleep(_POLL_S)
        late = self._replay_for(request) if behind and not _has(behind) else None
        if late is not None:
            return late
        attempt = Attempt()
        token = current.set(attempt)
        try:
            response = await self.get_response(request)
        except NotPrimary as error:
            return self._replay(error)
        finally:
            current.reset(token)
        positions = await sync_to_async(self._positions)(attempt) if self.read_your_writes else {}
        return self._finish(request, response, attempt, positions)

    def process_view(self, request: HttpRequest, view: Any, *_args: Any) -> Optional[HttpResponseBase]:
        marked = getattr(view, "sluice_primary", False) or getattr(
            getattr(view, "view_class", None), "sluice_primary", False
        )
        return self._replay_for(request) if marked else None

    def process_exception(self, _request: HttpRequest, error: Exception) -> Optional[HttpResponseBase]:
        """Before Django makes an error of it, tells its signal's receivers and logs it."""
        return self._replay(error) if isinstance(error, NotPrimary) else None

    def _early(self, request: HttpRequest) -> Optional[HttpResponseBase]:
        if self.local_methods and request.method not in self.local_methods:
            return self._replay_for(request)
        return None

    def _replay_for(self, _request: HttpRequest) -> Optional[HttpResponseBase]:
        """The answer, if this node is a replica."""
        for file in self.databases.values():
            name = primary(file)
            if name is not None:
                return self._replay(NotPrimary(file, name))
        return None

    def _replay(self, error: NotPrimary) -> HttpResponse:
        status, reason, headers, body = replay_answer(error, self.proxy)
        response = HttpResponse(body, status=status, reason=reason, headers=headers)
        # How Django's log_response knows that a status of 4xx needs no line: a replay is no news.
        response._has_been_logged = True  # type: ignore[attr-defined]
        return response

    def _finish(
        self, request: HttpRequest, response: Any, attempt: Attempt, positions: Dict[str, int]
    ) -> HttpResponseBase:
        if attempt.must_replay and attempt.refused is not None:
            return self._replay(attempt.refused)
        if positions:
            text = ".".join(f"{alias}-{at:016x}" for alias, at in positions.items())
            secure = request.is_secure()
            response.set_cookie(COOKIE, text, max_age=_COOKIE_AGE_S, httponly=True, samesite="Lax", secure=secure)
        # Sending a file needs no watch, and the server may have a faster way for it.
        if response.streaming and getattr(response, "file_to_stream", None) is None:
            attempt.streaming = True
            watch = _watch_async if response.is_async else _watch
            response.streaming_content = watch(response.streaming_content, attempt)
        return response  # type: ignore[no-any-return]

    def _positions(self, attempt: Attempt) -> Dict[str, int]:
        """Where the databases are that this request changed; captured now, since a commit a moment ago may not be."""
        if not self.read_your_writes:
            return {}
        changed = {guard.path for guard in attempt.guards if guard.path is not None and guard.has_committed()}
        found: Dict[str, int] = {}
        for alias, file in self.databases.items():
            if file in changed:
                try:
                    found[alias] = sync(file, "local", _SYNC_LIMIT_S)
                except NoSluice as error:
                    logger.warning("no position for the client's next read: %s", error)
        return found

    def _behind(self, request: HttpRequest) -> Dict[str, Any]:
        """What this request must see, by file, and until when to wait for it."""
        cookie = request.COOKIES.get(COOKIE, "") if self.read_your_writes else ""
        wanted: Dict[str, Any] = {}
        for part in cookie.split("."):
            alias, _, at = part.rpartition("-")
            if alias in self.databases and len(at) == 16 and primary(self.databases[alias]) is not None:
                try:
                    wanted[self.databases[alias]] = int(at, 16)
                except ValueError:
                    continue
        return {"until": time.monotonic() + self.read_timeout_s, "wanted": wanted} if wanted else {}

    def _must_wait(self, behind: Dict[str, Any]) -> bool:
        return not _has(behind) and time.monotonic() < behind["until"]


def _has(behind: Dict[str, Any]) -> bool:
    for file, wanted in behind["wanted"].items():
        here = position(file)
        if primary(file) is not None and (here is None or here.position < wanted):
            return False
    return True


def _watch(chunks: Any, attempt: Attempt) -> Iterator[bytes]:
    chunks = iter(chunks)
    while True:
        token = current.set(attempt)
        try:
            chunk = next(chunks, None)
        finally:
            current.reset(token)
        if chunk is None:
            return
        yield chunk


async def _watch_async(chunks: Any, attempt: Attempt) -> AsyncIterator[bytes]:
    chunks = aiter_of(chunks)
    while True:
        token = current.set(attempt)
        try:
            chunk = await chunks.__anext__()
        except StopAsyncIteration:
            return
        finally:
            current.reset(token)
        yield chunk


def aiter_of(chunks: Any) -> Any:
    """``aiter``, which Python 3.9 doesn't have."""
    return chunks.__aiter__()
