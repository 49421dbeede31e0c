"""Before any route: headers that close browsers' doors, a key or no answer, bodies bounded in bytes and in time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contracts.errors import Transient
from serving.audit import Audit
from serving.keys import Caller, Keys
from serving.problems import RETRY_S, ProblemError, problem_response

BODY_S = 300.0  # a body that takes longer is cut off: a slow sender must not hold a slot
PUBLIC = frozenset({"/healthz"})  # says only that somebody is there
SAFE = frozenset({"GET", "HEAD"})
CHANGES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
SECURITY = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

log = logging.getLogger(__name__)


class Guard:
    """ASGI middleware around the whole application. No CORS header is ever sent: other sites' pages may not ask."""

    def __init__(
        self,
        app: ASGIApp,
        keys: Keys,
        audit: Audit,
        limit: int,
        public: frozenset[str] = PUBLIC,
        body_s: float = BODY_S,
    ) -> None:
        self.app, self.keys, self.audit, self.limit = app, keys, audit, limit
        self.public, self.body_s = public, body_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status = 0

        async def secured(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY.items():
                    headers.setdefault(name, value)
            await send(message)

        state: dict[str, Any] = scope.setdefault("state", {})
        caller: Caller | None = None
        if scope["path"] not in self.public or scope["method"] not in SAFE:
            try:
                caller = await asyncio.to_thread(self.keys.verify, _presented(scope))
            except Transient:
                away = problem_response(503, "AWAY", "try again soon", headers={"Retry-After": str(RETRY_S)})
                await away(scope, receive, secured)
                return
            if caller is None:
                # the body stays unread: the server closes the connection
                challenge = {"WWW-Authenticate": 'Bearer realm="voxface"', "Connection": "close"}
                detail = "send a valid key as Authorization: Bearer KEY"
                await problem_response(401, "NO_KEY", detail, headers=challenge)(scope, receive, secured)
                await self._write(None, scope, 401, state)
                return
            state["caller"] = caller
        try:
            await self.app(scope, self._bounded(scope, receive), secured)
        finally:
            if caller is not None and (scope["method"] in CHANGES or status in (401, 403, 429)):
                await self._write(caller.id, scope, status, state)

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        declared = Headers(scope=scope).get("content-length", "")
        # a body said to be too long is refused before a byte of it is awaited
        count = int(declared) if declared.isdigit() and int(declared) > self.limit else 0
        end = asyncio.get_running_loop().time() + self.body_s
        complete = False

        async def bounded() -> MutableMapping[str, Any]:
            nonlocal count, complete
            if complete:
                return await receive()  # only the news that the client has gone
            message: MutableMapping[str, Any] = {}
            if count <= self.limit:
                try:
                    async with asyncio.timeout_at(end):
                        message = await receive()
                except TimeoutError:
                    raise ProblemError(408, "SLOW", f"the request took more than {self.body_s:.0f} s") from None
            count += len(message.get("body", b""))
            if count > self.limit:  # FastAPI hands an HTTPException raised here on as it is
                detail = f"the request has more than {self.limit} bytes; send less at once, or shorter speech"
                raise ProblemError(413, "TOO_LARGE", detail)
            complete = not message.get("more_body", False)
            return message

        return bounded

    async def _write(self, key: str | None, scope: Scope, status: int, state: dict[str, Any]) -> None:
        route = getattr(scope.get("route"), "path", "(none)")
        action = f"{scope['method'][:8]} {route}"[:64]
        try:
            await asyncio.to_thread(self.audit.write, key, action, status or 500, state.get("code"), state.get("job"))
        except Transient as error:
            log.warning("an audit row was lost: %s", error)


def _presented(scope: Scope) -> str:
    scheme, _, key = Headers(scope=scope).get("authorization", "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else ""
