"""Faust loses a message between its fetcher and us, as it can in a rebalance: it comes again, and nothing is lost.

Run: pytest tests/integration/test_lost_on_the_way.py
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.streaming import ROOT, Deployment, random_events, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

#: A sequence worker whose fetcher loses the message at one offset of partition 0, once, and counts it as read, as Faust does.
_WORKER = """
import sys

import stream.sequence
from stream.source_consumer import SourceConsumer
from tests.integration import streaming

stream.sequence._MEND_S, stream.sequence._LAG_S = 3.0, 1.0
lost, fausts_getmany = [], SourceConsumer.getmany

async def getmany(self, timeout):
    async for tp, message in fausts_getmany(self, timeout):
        if tp.topic == self._topic and tp.partition == 0 and message.offset == {offset} and not lost:
            lost.append(message)
            self._read_offset[tp] = message.offset
            print("LOST", flush=True)
            continue
        yield tp, message

SourceConsumer.getmany = getmany
sys.exit(streaming.main("sequence", {{"kafka": {kafka!r}, "prefix": {prefix!r}}}))
"""


@pytest.mark.parametrize("offset", [0, 7])
def test_a_message_that_faust_loses_comes_again(kafka_bootstrap: str, prefix: str, tmp_path: Path, offset: int) -> None:
    program = _WORKER.format(offset=offset, kafka=kafka_bootstrap, prefix=prefix)
    log = tmp_path / "sequence-that-loses.log"
    with Deployment(kafka_bootstrap, prefix, tmp_path) as deployment, log.open("wb") as output:
        ingest = deployment.start("ingest", max_poll_messages=100)
        process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=output, stderr=output)
        try:
            wait_until("it has partitions", lambda: "got [0, 1, 2, 3]" in log.read_text())
            deployment.send(random_events(4000, 300))
            deployment.drain()
            assert "LOST" in log.read_text()
            assert "reading on from what is committed" in log.read_text()
            assert deployment.mismatches() == []
            assert process.poll() is None
        finally:
            process.terminate()
            assert process.wait(30) == 0
        assert ingest.stop() == 0
