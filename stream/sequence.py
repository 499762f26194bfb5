"""The sequence stage: packed batches in, each user's newest events out, in the compacted changelog.

A Faust app with one agent, which hands every batch to its partition's committer (stream.committer) and acknowledges nothing: the
committer does, after its transaction. At least once from the batches' topic, and the merge is idempotent.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import faust
from faust.auth import SASLCredentials, SSLCredentials
from faust.tables.manager import TableManager
from faust.types.auth import CredentialsT
from prometheus_client import CollectorRegistry

from schemas.errors import ConfigError, UnavailableError
from schemas.names import SEQUENCE_TABLE, Names
from schemas.sequence import DEFAULT_CAPACITY
from stream.broker_watch import BrokerWatch
from stream.committer import Pending
from stream.dead_letters import Provenance
from stream.kafka import Admin, KafkaConfig
from stream.lag import group_lag
from stream.metrics import SequenceMetrics, served
from stream.ownership import Ownership
from stream.process import exit_at_once
from stream.table import RebalanceSensor, SequenceTable
from stream.topics import BATCH_MAX_MESSAGE_BYTES, check_topics

logger = logging.getLogger(__name__)

DAY_S = 86_400.0
#: Messages that Faust keeps per partition before it stops fetching; the committer keeps some more.
_FAUST_BUFFER = 64
_HOUSEKEEPING_S = 1.0
_LAG_S = 5.0


@dataclass(frozen=True)
class SequenceConfig:
    """Everything that a sequence worker is told.

    Attributes:
        capacity: newest events that a sequence keeps. Lowering it shortens a sequence at its next event; raising it brings
            nothing back.
        forget_marker_retention_s: for so long a forgotten user stays known as forgotten after the request, so that a late
            duplicate of an old event does not bring the user back.
        data_dir: Faust wants a directory of its own; none = a temporary one. Two workers cannot share one.
        session_timeout_s: a worker that is silent for so long loses its partitions; its successor waits as long.
        rebalance_timeout_s: how long the group waits for a living worker to finish what it has in hand.
        commit_interval_s: how often source offsets are committed.
        give_up_after_s: without an answer from Kafka for so long the stage ends with UnavailableError.
        metrics_port: of the Prometheus endpoint on 127.0.0.1; 0 = none.
    """

    kafka: KafkaConfig
    names: Names = field(default_factory=Names)
    capacity: int = DEFAULT_CAPACITY
    forget_marker_retention_s: float = 7 * DAY_S
    data_dir: Path | None = None
    session_timeout_s: float = 6.0
    rebalance_timeout_s: float = 60.0
    commit_interval_s: float = 0.5
    give_up_after_s: float = 120.0
    metrics_port: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.capacity <= 1 << 16:
            raise ConfigError(f"capacity {self.capacity} is not in [1, 65536]")


def run_sequence(config: SequenceConfig, registry: CollectorRegistry | None = None) -> None:
    """Run a worker in this process until SIGTERM or SIGINT; then commit what is in hand and leave the group.

    An error after the start ends the process at once, with the error's exit code and without a further acknowledgement or write:
    FencedError when another worker took a partition over, UnavailableError when Kafka has been away for `give_up_after_s`.

    Raises:
        TopicError: the topics are not there or do not fit together.
        UnavailableError: Kafka cannot be reached at the start.
        ConfigError: the data directory belongs to a running worker.
    """
    partitions = check_topics(config.kafka, config.names)[config.names.batches]
    _quieten_libraries()
    registry = registry or CollectorRegistry()
    with served(registry, config.metrics_port), _private_directory(config.data_dir) as data_dir:
        asyncio.run(_serve(config, partitions, SequenceMetrics(registry), data_dir))


async def _serve(config: SequenceConfig, partitions: int, metrics: SequenceMetrics, data_dir: Path) -> None:
    fail = partial(exit_at_once, logger=logger)
    ownership = Ownership(config.kafka, config.names, config.capacity, config.give_up_after_s, metrics, fail)
    app = build_app(config, partitions, ownership, data_dir, fail)
    loop = asyncio.get_running_loop()
    app.sensors.add(RebalanceSensor(ownership, loop))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    up = asyncio.Event()

    def on_broker(answers: bool) -> None:
        loop.call_soon_threadsafe(up.set if answers else up.clear)

    with BrokerWatch(config.kafka, config.names.batches, config.give_up_after_s, on_broker) as watch:
        starting = asyncio.create_task(app.start())
        housekeeping = asyncio.create_task(_keep_house(config, app, ownership, metrics, up, watch.check, fail))
        await stop.wait()
        metrics.ready.set(0)
        housekeeping.cancel()
        ownership.begin_rebalance()  # what still loads is not waited for
        await app.stop()
        starting.cancel()
        await asyncio.gather(starting, housekeeping, return_exceptions=True)
        await ownership.close()


def build_app(
    config: SequenceConfig,
    partitions: int,
    ownership: Ownership,
    data_dir: Path,
    fail: Callable[[BaseException], None],
) -> faust.App:
    """The Faust app, ready to be started in the running event loop."""
    names = config.names
    app = faust.App(
        names.sequence_app,
        env={},  # Faust would let any variable of the environment win over what we say here
        broker=[f"kafka://{server.strip()}" for server in config.kafka.bootstrap_servers.split(",")],
        broker_credentials=_credentials(config.kafka),
        broker_session_timeout=config.session_timeout_s,
        broker_heartbeat_interval=min(1.0, config.session_timeout_s / 4),
        broker_rebalance_timeout=config.rebalance_timeout_s,
        broker_commit_interval=config.commit_interval_s,
        broker_max_poll_interval=DAY_S,  # a full committer stops fetching; giving up is decided elsewhere
        consumer_auto_offset_reset="earliest",
        consumer_max_fetch_size=4 * BATCH_MAX_MESSAGE_BYTES,
        stream_buffer_maxsize=_FAUST_BUFFER,
        stream_wait_empty=True,
        topic_partitions=partitions,
        topic_allow_declare=False,
        topic_disable_leader=True,
        table_standby_replicas=0,
        store="memory://",
        datadir=data_dir / "faust",
        web_enabled=False,
        TableManager=QuickTableManager,
        recovery_consistency_check=False,
    )
    raw: dict[str, Any] = {"key_type": bytes, "value_type": bytes, "key_serializer": "raw", "value_serializer": "raw"}
    changelog = app.topic(
        names.sequences, **raw, partitions=partitions, compacting=True, acks=False, internal=True, allow_empty=True
    )
    table = SequenceTable(
        app,
        ownership,
        names.batches,
        fail,
        name=SEQUENCE_TABLE,
        default=bytes,
        partitions=partitions,
        key_type=bytes,
        value_type=bytes,
        changelog_topic=changelog,
    )
    app.tables.add(table)
    batches = app.topic(names.batches, **raw, partitions=partitions, allow_empty=True)

    # One actor per partition, so that a full partition holds up no other. With concurrency, offsets would be committed past what
    # is in hand.
    @app.agent(batches, name="apply", isolated_partitions=True)
    async def apply(stream: Any) -> None:
        try:
            stream = stream.noack()
            async for event in stream.events():
                await ownership.committer(event.message.partition).put(_pending(app, event))
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            fail(error)

    return app


class QuickTableManager(TableManager):
    """Without the second that Faust sleeps at the start, for tables that are defined late: ours is not."""

    logger = logging.getLogger("faust.slipstream")

    async def on_start(self) -> None:
        await self._update_channels()
        await self.recovery.start()


def _pending(app: faust.App, event: Any) -> Pending:
    message = event.message

    def drop() -> None:
        app.consumer.unacked.discard(message)  # or Faust would wait for it before it gives a partition up

    return Pending(
        Provenance(message.topic, message.partition, message.offset, int(message.timestamp * 1000)),
        message.key,
        message.value,
        list(message.headers or ()),
        event.ack,
        drop,
    )


async def _keep_house(
    config: SequenceConfig,
    app: faust.App,
    ownership: Ownership,
    metrics: SequenceMetrics,
    up: asyncio.Event,
    check_broker: Callable[[], None],
    fail: Callable[[BaseException], None],
) -> None:
    """Once a second: is all well, is it ready; from time to time: lag, markers that expire."""
    admin = Admin(config.kafka)
    last_lag_s = rebalancing_since_s = time.monotonic()
    while True:
        try:
            if app.crash_reason is not None:
                raise app.crash_reason
            check_broker()
            now = time.monotonic()
            if not app.rebalancing:
                rebalancing_since_s = now
            elif now - rebalancing_since_s > config.give_up_after_s + config.rebalance_timeout_s:
                raise UnavailableError(f"a rebalance does not come to its end for {now - rebalancing_since_s:.0f} s")
            settled = not app.rebalancing and not ownership.loading and app.tables.actives_ready
            metrics.ready.set(up.is_set() and settled)
            metrics.users.set(ownership.users)
            ownership.expire_markers(int((time.time() - config.forget_marker_retention_s) * 1000))
            if up.is_set() and now - last_lag_s > _LAG_S:
                last_lag_s = now
                await _report_lag(config, admin, ownership, metrics)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            fail(error)
        await asyncio.sleep(_HOUSEKEEPING_S)


async def _report_lag(config: SequenceConfig, admin: Admin, ownership: Ownership, metrics: SequenceMetrics) -> None:
    topic = config.names.batches
    try:
        lag = await asyncio.to_thread(group_lag, admin, config.names.sequence_app, [topic])
    except UnavailableError:
        return  # the broker watch knows
    metrics.lag.clear()
    for partition in ownership.partitions:
        metrics.lag.labels(partition).set(lag[topic, partition])


def _credentials(kafka: KafkaConfig) -> CredentialsT | None:
    arguments = kafka.aiokafka()
    protocol = arguments["security_protocol"]
    if protocol.startswith("SASL"):
        return SASLCredentials(
            username=arguments.get("sasl_plain_username"),
            password=arguments.get("sasl_plain_password"),
            mechanism=arguments["sasl_mechanism"],
            ssl_context=arguments.get("ssl_context"),
        )
    return SSLCredentials(context=arguments["ssl_context"]) if protocol == "SSL" else None


def _quieten_libraries() -> None:
    """They tell their life's story at INFO. aiokafka logs every attempt to reach a broker that is away, twenty times a second:
    the broker watch says it once, and what aiokafka cannot get over it raises."""
    for name, level in (("faust", logging.WARNING), ("mode", logging.WARNING), ("aiokafka", logging.CRITICAL)):
        library = logging.getLogger(name)
        if library.level == logging.NOTSET:
            library.setLevel(level)


@contextmanager
def _private_directory(configured: Path | None) -> Iterator[Path]:
    """A directory that no other worker uses.

    Raises:
        ConfigError: another worker does, or it cannot be made.
    """
    if configured is None:
        directory = Path(tempfile.mkdtemp(prefix="slipstream-sequence-"))
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        return
    try:
        configured.mkdir(parents=True, exist_ok=True)
        lock = (configured / "lock").open("w")
    except OSError as error:
        raise ConfigError(f"data directory {configured}: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(f"data directory {configured} belongs to a running worker: give each its own") from None
        yield configured
