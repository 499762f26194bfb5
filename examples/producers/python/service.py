"""A web service that tells Slipstream what users do: Starlette, and aiokafka's producer.

POST /engagements  {"user_id": "u-17", "item_id": "pin-9", "action": "save", "surface": "home"}
    202  the event is in Kafka, on all in-sync replicas
    400  it is no event: the body says why
    503  Kafka did not take it in time: the caller may send it again
GET  /health       200 while the service serves

Run: KAFKA_BOOTSTRAP=127.0.0.1:9092 python service.py
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import msgspec
import uvicorn
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

BOOTSTRAP = os.environ.get("KAFKA_BOOTSTRAP", "127.0.0.1:9092")
TOPIC = os.environ.get("TOPIC", "slipstream.engagements")
PORT = int(os.environ.get("PORT", "8081"))
DELIVERY_TIMEOUT_MS = int(os.environ.get("DELIVERY_TIMEOUT_MS", "10000"))
MAX_BODY_BYTES = 4096

log = logging.getLogger("producer")
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class Engagement(msgspec.Struct, forbid_unknown_fields=True):
    """What a client may say. When it happened is for the server to say: clients' clocks are wrong."""

    user_id: Text
    item_id: Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)] | Text
    action: Text
    surface: Text


class Event(Engagement):
    timestamp_ms: int


decode = msgspec.json.Decoder(Engagement).decode
encode = msgspec.json.Encoder().encode


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """One producer for the whole process. `stop` waits until all that was sent is delivered, or has failed."""
    producer = AIOKafkaProducer(
        bootstrap_servers=BOOTSTRAP,
        acks="all",
        enable_idempotence=True,  # retries neither duplicate nor reorder
        linger_ms=2,
        compression_type="zstd",
        request_timeout_ms=DELIVERY_TIMEOUT_MS,
    )
    await producer.start()
    app.state.producer = producer
    try:
        yield
    finally:
        await producer.stop()


async def engagements(request: Request) -> Response:
    now_ms = time.time_ns() // 1_000_000
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            return JSONResponse({"error": f"the body is longer than {MAX_BODY_BYTES} bytes"}, 413)
    try:
        said = decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return JSONResponse({"error": f"no engagement: {error}"}, 400)
    event = Event(said.user_id, said.item_id, said.action, said.surface, now_ms)
    try:
        # The key keeps a user's events on one partition, and so in order.
        await request.app.state.producer.send_and_wait(TOPIC, encode(event), key=said.user_id.encode())
    except KafkaError as error:
        log.error("not delivered: an event of %s: %r", said.user_id, error)
        return JSONResponse({"error": "not delivered in time: try again"}, 503)
    return Response(status_code=202)


async def health(_: Request) -> Response:
    return PlainTextResponse("ok\n")


app = Starlette(
    routes=[Route("/engagements", engagements, methods=["POST"]), Route("/health", health)], lifespan=lifespan
)

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    # On SIGTERM uvicorn lets requests that are under way end, then the lifespan.
    uvicorn.run(app, host="127.0.0.1", port=PORT, log_level="warning", access_log=False)
