"""Replays for any WSGI application, such as Flask: ``app.wsgi_app = ReplayWSGI(app.wsgi_app)``."""

from __future__ import annotations

from typing import Any, Callable, Iterable, Iterator, List, Optional

from .attempt import Attempt, NotPrimary, current
from .replay import Proxy, replay_answer

Application = Callable[..., Iterable[bytes]]


class ReplayWSGI:
    """
    Turns a refused write into the answer that has the request replayed, also when the application has caught the
    exception. The response's head is kept back until its first bytes are there.
    """

    def __init__(self, app: Application, proxy: Proxy = "sluice") -> None:
        self.app = app
        self.proxy = proxy

    def __call__(self, environ: Any, start_response: Any) -> Iterator[bytes]:
        attempt = Attempt()
        head: List[Any] = []
        body: Any = ()
        chunks: Iterator[bytes] = iter(())
        first: Optional[bytes] = None

        def hold(*args: Any) -> Callable[[bytes], None]:
            head[:] = args
            return _no_write

        token = current.set(attempt)
        try:
            body = self.app(environ, hold)
            chunks = iter(body)
            first = next((chunk for chunk in chunks if chunk), None)
        except NotPrimary as error:
            attempt.refused = attempt.refused or error
        except Exception:
            if not attempt.must_replay:
                raise
        finally:
            current.reset(token)
        if attempt.refused is not None and attempt.must_replay:
            _close(body)
            answer = replay_answer(attempt.refused, self.proxy)
            start_response(f"{answer.status} {answer.reason}", list(answer.headers.items()))
            return iter((answer.body,))
        start_response(*head)
        attempt.streaming = True
        return _Rest(attempt, body, chunks, first)


class _Rest:
    """The response's bytes, each got in the context of the attempt."""

    def __init__(self, attempt: Attempt, body: Any, chunks: Iterator[bytes], first: Optional[bytes]) -> None:
        self._attempt = attempt
        self._body = body
        self._chunks = chunks
        self._first = first

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._first is not None:
            first, self._first = self._first, None
            return first
        token = current.set(self._attempt)
        try:
            return next(self._chunks)
        finally:
            current.reset(token)

    def close(self) -> None:
        _close(self._body)


def _close(body: Any) -> None:
    if hasattr(body, "close"):
        body.close()


def _no_write(_data: bytes) -> None:
    raise NotImplementedError("WSGI's write() can't be taken back; return the body instead")
