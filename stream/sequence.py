"""The sequence stage: packed batches in, each user's newest events out, in the compacted changelog.

A Faust app with one agent, which hands every batch to its partition's committer (stream.committer) and acknowledges nothing: the
committer does, after its transaction. At least once from the batches' topic, and the merge is idempotent.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

import faust
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]
from prometheus_client import CollectorRegistry

from edge.allocator import share_one_arena
from edge.broker_watch import BrokerWatch
from edge.health import Health, served
from edge.kafka import Admin
from edge.process import FAREWELL_S, end_unfinished, exit_at_once
from edge.tracing import Tracing, tracing
from schemas.errors import UnavailableError
from stream.changelog import failure
from stream.config import SequenceConfig
from stream.data_dir import private_directory
from stream.metrics import SequenceMetrics
from stream.ownership import Ownership
from stream.progress import Progress, unread
from stream.sequence_app import build_app, quieten_libraries
from stream.sequence_traces import SequenceTraces
from stream.stores import open_stores
from stream.table import RebalanceSensor
from stream.topics import check_topics

__all__ = ["SequenceConfig", "run_sequence"]

logger = logging.getLogger(__name__)

_HOUSEKEEPING_S = 1.0
_LAG_S = 5.0
_MEND_S = 20.0
#: Batches in hand, their transactions, the last commit, leaving the group.
_LEAVE_S = 2 * FAREWELL_S


def run_sequence(config: SequenceConfig, registry: CollectorRegistry | None = None) -> None:
    """Run a worker in this process until SIGTERM or SIGINT; then commit what is in hand and leave the group.

    When Kafka does not answer, the process ends without that after a few seconds, with exit code 0: what could not be committed
    comes again.

    An error after the start ends the process at once, with the error's exit code and without a further acknowledgement or write:
    FencedError when another worker took a partition over, UnavailableError when Kafka has been away for `give_up_after_s`.

    Raises:
        TopicError: the topics are not there or do not fit together.
        UnavailableError: Kafka cannot be reached at the start.
        ConfigError: the data directory belongs to a running worker.
        PrerequisiteError: the store is rocksdb, and its package is not installed.
    """
    share_one_arena()
    config.kafka.aiokafka()  # its own checks, before anything is asked
    partitions = check_topics(config.kafka, config.names)[config.names.batches]
    quieten_libraries()
    registry = registry or CollectorRegistry()
    health = Health({"kafka": "not asked yet", "tables": "joining the group"})
    over_http = served(registry, health, config.metrics_port, config.metrics_host)
    spans = tracing(config.traces, "sequence", config.names.prefix)
    with over_http, private_directory(config.data_dir) as data_dir, spans as traces:
        asyncio.run(_serve(config, partitions, SequenceMetrics(registry), health, data_dir, traces))


async def _serve(
    config: SequenceConfig,
    partitions: int,
    metrics: SequenceMetrics,
    health: Health,
    data_dir: Path,
    spans: Tracing | None,
) -> None:
    stop = asyncio.Event()

    def fail(error: BaseException) -> NoReturn:
        if stop.is_set() and isinstance(error, UnavailableError):
            _end_without_kafka(config)
        exit_at_once(error, logger)

    stores = open_stores(config, data_dir)
    traces = SequenceTraces(spans, config.names) if spans else None
    ownership = Ownership(config, metrics, stores, fail, traces)
    app = build_app(config, partitions, ownership, data_dir, fail)
    loop = asyncio.get_running_loop()
    app.sensors.add(RebalanceSensor(ownership, loop))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    topics = [config.names.batches, config.names.sequences]
    broker_watch = BrokerWatch(config.kafka, topics, config.give_up_after_s, partial(health.set, "kafka"))
    with metrics.stage.told(health), broker_watch as watch:
        starting = asyncio.create_task(app.start())
        starting.add_done_callback(partial(_watch_start, config, fail))
        housekeeping = asyncio.create_task(_keep_house(config, app, ownership, metrics, health, watch.check, fail))
        await stop.wait()
        health.set("stopping", "told to stop")
        housekeeping.cancel()
        leaving = asyncio.create_task(_leave(app, ownership, starting))
        if not (await asyncio.wait({leaving}, timeout=_LEAVE_S))[0]:
            _end_without_kafka(config)
        leaving.result()


def _watch_start(config: SequenceConfig, fail: Callable[[BaseException], None], starting: asyncio.Task[None]) -> None:
    """A start that failed ends the process: Faust would wait for ever, with no consumer."""
    if starting.cancelled() or (error := starting.exception()) is None:
        return
    where = f"Kafka at {config.kafka.bootstrap_servers} went away while the worker started"
    fail(UnavailableError(f"{where}: {error}; start it again") if isinstance(error, KafkaError) else error)


async def _leave(app: faust.App, ownership: Ownership, starting: asyncio.Task[None]) -> None:
    ownership.begin_rebalance()  # what still loads is not waited for
    await app.stop()
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await ownership.close()


def _end_without_kafka(config: SequenceConfig) -> NoReturn:
    """Threads and tasks of Faust, aiokafka and the loading of a table may wait for Kafka for minutes more."""
    logger.warning(
        "Kafka at %s does not answer: what is in hand was not committed within %.0f s and comes again",
        config.kafka.bootstrap_servers,
        _LEAVE_S,
    )
    end_unfinished()


async def _keep_house(
    config: SequenceConfig,
    app: faust.App,
    ownership: Ownership,
    metrics: SequenceMetrics,
    health: Health,
    check_broker: Callable[[], None],
    fail: Callable[[BaseException], None],
) -> None:
    """Once a second: is all well, is it ready; from time to time: lag, markers that expire."""
    admin, progress = Admin(config.kafka), Progress(_MEND_S, config.give_up_after_s)
    last_lag_s = rebalancing_since_s = time.monotonic()
    while True:
        try:
            if (crash := app.crash_reason) is not None:
                where = f"Kafka at {config.kafka.bootstrap_servers}, group {config.names.sequence_app}"
                raise failure(crash, where, config.give_up_after_s) if isinstance(crash, KafkaError) else crash
            check_broker()
            now = time.monotonic()
            if not app.rebalancing:
                rebalancing_since_s = now
            elif now - rebalancing_since_s > config.give_up_after_s + config.rebalance_timeout_s:
                raise UnavailableError(f"a rebalance does not come to its end for {now - rebalancing_since_s:.0f} s")
            health.beat()
            health.set("tables", _unsettled(app, ownership))
            metrics.users.set(ownership.users)
            ownership.expire_markers(int((time.time() - config.forget_marker_retention_s) * 1000))
            if not health.ready:
                progress.reset()
            elif now - last_lag_s > _LAG_S:
                last_lag_s = now
                await _look_at_progress(config, app, admin, ownership, metrics, progress)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            fail(error)
        await asyncio.sleep(_HOUSEKEEPING_S)


def _unsettled(app: faust.App, ownership: Ownership) -> str | None:
    if loading := ownership.loading:
        return f"partitions {loading} are loading"
    if app.rebalancing or not app.tables.actives_ready:
        return "the group's partitions are being assigned"
    return None


def _report_disk(config: SequenceConfig, metrics: SequenceMetrics) -> None:
    if config.store == "rocksdb" and config.data_dir is not None:
        with suppress(OSError):  # the store says what is wrong with its disk
            disk = shutil.disk_usage(config.data_dir)
            metrics.disk_free_bytes.labels(config.store).set(disk.free)
            metrics.disk_size_bytes.labels(config.store).set(disk.total)


async def _look_at_progress(
    config: SequenceConfig,
    app: faust.App,
    admin: Admin,
    ownership: Ownership,
    metrics: SequenceMetrics,
    progress: Progress,
) -> None:
    """Reports the lag, and mends what Faust left broken. Raises UnavailableError if nothing moves though it should."""
    mine = [(config.names.batches, partition) for partition in ownership.partitions]
    try:
        behind, committed = await asyncio.to_thread(unread, admin, config.names.sequence_app, mine)
    except UnavailableError:
        progress.reset()
        return  # the broker watch knows
    metrics.stage.lag = {partition: n for (_, partition), n in behind.items()}
    _report_disk(config, metrics)
    if progress.note(behind, committed):
        logger.warning(
            "nothing was committed for %.0f s although messages wait: reading on from what is committed", _MEND_S
        )
        await app.consumer.perform_seek()
