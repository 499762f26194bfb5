"""The page over HTTP, for one person's browser: four files and a stream of events. It only reads, and answers GET alone.

    GET /               the page, its style and its script
    GET /events         server-sent events: `figures` once a second, a Snapshot
    GET /events?user=ID and `user`, a UserView, now and whenever that user's state has changed

Whoever can connect sees users' histories. So it listens on localhost unless told otherwise, answers only under a host name that
was allowed (another site's name that resolves to this machine is none), and lets no other origin read or frame it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from importlib.resources import files

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from schemas.errors import ConfigError
from schemas.event import MAX_USER_BYTES
from slipstream.watch.user import Followed
from slipstream.watch.watcher import EVERY_S, Watcher

LOCAL = ("localhost", "127.0.0.1", "[::1]")
#: How often a followed user's state is looked at.
USER_EVERY_S = 0.5
#: Each open page is one.
MAX_STREAMS = 32
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/watch.css": ("watch.css", "text/css; charset=utf-8"),
    "/watch.js": ("watch.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
    "/chart.js": ("chart.js", "text/javascript; charset=utf-8"),
}
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_encode = msgspec.json.Encoder().encode


def make_app(watcher: Watcher, hosts: Sequence[str], ending: Callable[[], bool]) -> Starlette:
    """
    Args:
        watcher: it runs.
        hosts: names that the page may be reached by, beside localhost's.
        ending: whether the server ends: streams end with it.
    """
    moment = _Moment(watcher)
    streams: set[object] = set()

    async def events(request: Request) -> Response:
        if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return PlainTextResponse("another site's page may not read this\n", 403)
        user = request.query_params.get("user", "")
        if len(user.encode(errors="replace")) > MAX_USER_BYTES:
            return PlainTextResponse(f"a user id has at most {MAX_USER_BYTES} bytes\n", 400)
        if len(streams) >= MAX_STREAMS:
            return PlainTextResponse(f"{MAX_STREAMS} pages are open already: close one\n", 503)
        followed = Followed(user, watcher.states, watcher.shelf) if user else None

        async def stream() -> AsyncIterator[bytes]:
            mark = object()
            streams.add(mark)
            try:
                async for event in _events(moment, followed, ending):
                    yield event
            finally:
                streams.discard(mark)

        return StreamingResponse(stream(), media_type="text/event-stream")

    return Starlette(
        routes=[*(_page(path, *found) for path, found in _FILES.items()), Route("/events", events)],
        middleware=[
            Middleware(_Guarded),
            Middleware(TrustedHostMiddleware, allowed_hosts=[*LOCAL, *hosts], www_redirect=False),
        ],
    )


async def _events(moment: _Moment, followed: Followed | None, ending: Callable[[], bool]) -> AsyncIterator[bytes]:
    sent = b""
    while not ending():
        if (figures := moment.encoded()) is not sent:
            yield b"event: figures\ndata: " + figures + b"\n\n"
            sent = figures
        if followed is not None and (view := await run_in_threadpool(followed.look)) is not None:
            yield b"event: user\ndata: " + _encode(view) + b"\n\n"
        await asyncio.sleep(USER_EVERY_S)


class _Moment:
    """The newest snapshot, made at most once a second for all streams together."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._encoded, self._made_s = b"", float("-inf")

    def encoded(self) -> bytes:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._made_s >= EVERY_S:
            self._encoded, self._made_s = _encode(self._watcher.snapshot()), now_s
        return self._encoded


def _page(path: str, name: str, media_type: str) -> Route:
    content = (files("slipstream.watch") / "page" / name).read_bytes()

    async def page(_: Request) -> Response:
        return Response(content, media_type=media_type)

    return Route(path, page)


class _Guarded:
    """Sets the headers of every answer, refusals too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, guarded if scope["type"] == "http" else send)


def serve(watcher: Watcher, host: str, port: int, hosts: Sequence[str], ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        port: 0: one that is free.
        ready: called with the address when connections are accepted.

    Raises:
        ConfigError: the address cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host} port {port} ({error.strerror or error}): give another --port"
        ) from None
    shown = f"[{host}]" if family is socket.AF_INET6 else host
    own = () if host in ("0.0.0.0", "::") else (shown,)
    app = make_app(watcher, [*own, *hosts], lambda: server.should_exit)
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(config)
    ready(f"http://{shown}:{listening.getsockname()[1]}/")
    with listening:
        server.run(sockets=[listening])
