"""The service over HTTP.

POST /rank      {"user": "u-17", "candidates": [1, 2, 3]} -> ranking_service.contract.RankAnswer
GET  /health    200 while the process serves
GET  /ready     200, or 503 with why another model should be loaded
GET  /metrics   Prometheus' text format: ours, and the state reader's
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ranking_service.contract import MAX_BODY_BYTES, RankRequest
from ranking_service.service import Service

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(RankRequest).decode


def make_app(service: Service) -> Starlette:
    """The service works while the app runs."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            await service.stop()

    async def rank(request: Request) -> Response:
        arrived_s = asyncio.get_running_loop().time()
        body = bytearray()
        async for piece in request.stream():
            body += piece
            if len(body) > MAX_BODY_BYTES:
                return JSONResponse({"error": f"the body is longer than {MAX_BODY_BYTES} bytes"}, 413)
        try:
            asked = _decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            return JSONResponse({"error": f"no request to rank: {error}"}, 400)
        return Response(_encode(await service.rank(asked, arrived_s)), media_type="application/json")

    async def health(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def ready(_: Request) -> Response:
        return JSONResponse({"ready": not service.trouble, "why": service.trouble}, 503 if service.trouble else 200)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(service.registry), media_type=CONTENT_TYPE_LATEST)

    routes = [
        Route("/rank", rank, methods=["POST"]),
        Route("/health", health),
        Route("/ready", ready),
        Route("/metrics", metrics),
    ]
    return Starlette(routes=routes, lifespan=lifespan)
