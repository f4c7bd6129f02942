"""Replays for any ASGI application, such as FastAPI: ``app.add_middleware(ReplayASGI)``."""

from __future__ import annotations

from typing import Any, Awaitable, Callable, Dict, Optional

from .attempt import Attempt, NotPrimary, current
from .replay import Proxy, replay_answer

Message = Dict[str, Any]
Application = Callable[..., Awaitable[None]]


class ReplayASGI:
    """
    Turns a refused write into the answer that has the request replayed, also when the application has caught the
    exception. The response's head is kept back until its first message with a body.
    """

    def __init__(self, app: Application, proxy: Proxy = "sluice") -> None:
        self.app = app
        self.proxy = proxy

    async def __call__(self, scope: Message, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        attempt = Attempt()
        token = current.set(attempt)
        head: Optional[Message] = None

        async def hold(message: Message) -> None:
            nonlocal head
            if message["type"] == "http.response.start":
                head = message
            elif head is None:
                await send(message)
            elif not attempt.must_replay:
                attempt.streaming = True
                begun, head = head, None
                await send(begun)
                await send(message)

        try:
            await self.app(scope, receive, hold)
        except NotPrimary as error:
            if attempt.streaming:
                raise
            attempt.refused = attempt.refused or error
        except Exception:
            if attempt.streaming or not attempt.must_replay:
                raise
        finally:
            current.reset(token)
        if attempt.must_replay and attempt.refused is not None and not attempt.streaming:
            await _send(attempt.refused, self.proxy, send)


async def _send(error: NotPrimary, proxy: Proxy, send: Any) -> None:
    answer = replay_answer(error, proxy)
    headers = [(name.lower().encode(), value.encode()) for name, value in answer.headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})
