"""A sequence worker whose broker goes while it starts: it ends with a reason, rather than wait for ever without a consumer.

Run: pytest tests/integration/test_failed_start.py
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.streaming import Deployment, Worker

pytestmark = pytest.mark.integration


@contextlib.contextmanager
def closing(kafka_bootstrap: str, let_in: int) -> Iterator[str]:
    """The address of a way to Kafka that hangs up on clients of aiokafka but the first `let_in`: for them the broker is gone,
    though the checks before, librdkafka's, went well."""
    host, port = kafka_bootstrap.rsplit(":", 1)
    came = 0
    loop = asyncio.new_event_loop()

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while some := await reader.read(1 << 16):
                writer.write(some)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(1 << 16)  # holds the client's id
        if b"rdkafka" not in first:
            nonlocal came
            came += 1
            if came > let_in:
                writer.close()
                return
        broker_reader, broker_writer = await asyncio.open_connection(host, int(port))
        broker_writer.write(first)
        await asyncio.gather(copy(reader, broker_writer), copy(broker_reader, writer))

    server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1"))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()


@pytest.mark.parametrize("let_in", [0, 1])
def test_a_start_that_fails_ends_the_worker(kafka_bootstrap: str, prefix: str, tmp_path: Path, let_in: int) -> None:
    """Faust's producer, or its consumer, which has a thread of its own."""
    with Deployment(kafka_bootstrap, prefix, tmp_path) as deployment, closing(kafka_bootstrap, let_in) as address:
        worker = Worker("sequence", address, prefix, tmp_path / "sequence.log", {})
        deployment.workers.append(worker)
        assert worker.wait(60) == 6
        assert "went away while the worker started" in worker.text()
        assert "Traceback" not in worker.text()
        deployment.start("sequence").wait_for_partitions()
