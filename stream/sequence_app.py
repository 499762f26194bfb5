"""The Faust app of the sequence stage: one agent, which hands every batch to its partition's committer.

It acknowledges nothing: the committer does, after its transaction.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import faust
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]
from faust.auth import GSSAPICredentials, OAuthCredentials, SASLCredentials, SSLCredentials
from faust.tables.manager import TableManager
from faust.types.auth import CredentialsT
from mode.threads import ServiceThread

from edge.kafka import KafkaConfig
from edge.log_lines import log_thread_error
from schemas.names import SEQUENCE_TABLE
from stream.batch_queue import Pending
from stream.config import DAY_S, SequenceConfig
from stream.dead_letters import Provenance
from stream.ownership import Ownership
from stream.source_consumer import SourceConsumer
from stream.table import SequenceTable
from stream.topics import BATCH_MAX_MESSAGE_BYTES

#: Messages that Faust keeps per partition before it stops fetching; the committer keeps some more.
_FAUST_BUFFER = 64


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
    consumer = partial(SourceConsumer, topic=names.batches, log_start=ownership.source_start)
    app.transport.Consumer = consumer  # type: ignore[assignment, misc]  # this app's alone, not of the class
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


def _credentials(kafka: KafkaConfig) -> CredentialsT | None:
    """What Faust hands to its own aiokafka clients."""
    arguments = kafka.aiokafka()
    protocol, tls = arguments["security_protocol"], arguments.get("ssl_context")
    if protocol == "PLAINTEXT":
        return None
    if protocol == "SSL":
        return SSLCredentials(context=tls)
    match arguments["sasl_mechanism"]:
        case "OAUTHBEARER":
            return OAuthCredentials(oauth_cb=arguments["sasl_oauth_token_provider"], ssl_context=tls)
        case "GSSAPI":
            service = arguments["sasl_kerberos_service_name"]
            return GSSAPICredentials(kerberos_service_name=service, ssl_context=tls, mechanism="GSSAPI")
        case mechanism:
            return SASLCredentials(
                username=arguments["sasl_plain_username"],
                password=arguments["sasl_plain_password"],
                mechanism=mechanism,
                ssl_context=tls,
            )


def quieten_libraries() -> None:
    """They tell their life's story at INFO. aiokafka logs every attempt to reach a broker that is away, twenty times a second:
    the broker watch says it once, and what aiokafka cannot get over it raises. Faust tells such an error with its traceback,
    twice, before it ends this process's work, and we say it in a line."""
    for name, level in (("faust", logging.WARNING), ("mode", logging.WARNING), ("aiokafka", logging.CRITICAL)):
        library = logging.getLogger(name)
        if library.level == logging.NOTSET:
            library.setLevel(level)
    # A filter of "faust" is not asked for what "faust.app" logs. These two are imported later.
    for name in [*logging.root.manager.loggerDict, "faust.app.base", "faust.transport.drivers.aiokafka"]:
        if name.split(".")[0] in ("faust", "mode"):
            logging.getLogger(name).addFilter(_without_kafkas_traceback)
    # A thread of Faust's that ends by an error prints it to stderr, with its traceback, and Python does so once more.
    ServiceThread.on_crash = _log_crash  # type: ignore[assignment, method-assign]
    threading.excepthook = tell_thread_error


def _log_crash(thread: ServiceThread, text: str, *parts: Any, **_: Any) -> None:
    thread.log.error("%s", text.format(*parts))


def tell_thread_error(ended: threading.ExceptHookArgs) -> None:
    """But for Kafka's errors, and the cancelling of what waited for Kafka when the worker was told to stop."""
    if not isinstance(ended.exc_value, KafkaError | asyncio.CancelledError):
        log_thread_error(ended)


def _without_kafkas_traceback(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], KafkaError):
        record.exc_info = record.exc_text = None
    return True
