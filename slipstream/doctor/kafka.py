"""Asks Kafka what the checks of a deployment's topics need to know. Changes nothing there."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from difflib import get_close_matches

from confluent_kafka import TIMESTAMP_LOG_APPEND_TIME, Consumer, KafkaException, TopicPartition

from edge.kafka import REQUEST_TIMEOUT_S, Admin, KafkaConfig, make
from schemas.errors import SlipstreamError, TopicError
from schemas.names import Names, readers_group
from slipstream.doctor import judge_kafka as judge
from slipstream.doctor.clock import ClockFacts, judge_clock
from slipstream.doctor.finding import Finding, Level, skipped, told
from stream.offsets import end_offsets
from stream.topics import partition_counts, plan_topics, topic_settings

CHECKS = (judge.REACH, judge.TOPICS, judge.PARTITIONS, judge.SETTINGS, judge.CLOCK)
_CONNECT_S = 2.0
_DEFAULT_PORT = 9092
#: Brokers whose addresses are tried.
_MOST_BROKERS = 12
#: How long a record may take that tells the broker's time: one that is there, or, in a busy deployment, a new one.
_RECORD_S = 1.0
#: What a record may take from the broker's clock to ours.
_ON_THE_WAY_MS = 250
_SUFFIX = Names("x").batches.removeprefix("x")


def kafka_findings(kafka: KafkaConfig, names: Names) -> Iterator[Finding]:
    """A finding for each of CHECKS, in their order."""
    facts = reach(kafka, names)
    reached = judge.judge_reach(facts)
    yield reached
    if facts.error is not None or all(facts.bootstrap.values()):
        yield from skipped(CHECKS[1:], "Kafka cannot be asked")
        return
    admin = Admin(kafka)
    counts: dict[str, int] = {}

    def topics() -> Finding:
        wanted = [plan.name for plan in plan_topics(names, 1)]
        counts.update(partition_counts(admin, wanted))
        return judge.judge_topics(names, counts, _prefixes(admin, names) if len(counts) < len(wanted) else [])

    yield told(judge.TOPICS, topics)
    if names.batches in counts and names.sequences in counts:
        yield told(judge.PARTITIONS, lambda: judge.judge_partitions(names, counts))
    else:
        yield from skipped([judge.PARTITIONS], f"see {judge.TOPICS}")
    if counts:
        yield told(judge.SETTINGS, lambda: judge.judge_settings(names, topic_settings(admin, list(counts))))
    else:
        yield from skipped([judge.SETTINGS], f"see {judge.TOPICS}")
    if names.engagements in counts:
        yield _clock(kafka, admin, names.engagements, counts[names.engagements])
    else:
        yield from skipped([judge.CLOCK], f"see {judge.TOPICS}")


def reach(kafka: KafkaConfig, names: Names) -> judge.ReachFacts:
    """Whether connections are taken, whether Kafka answers on them, and whether its brokers are where they say."""
    options = kafka.options
    protocol = options.get("security.protocol", "plaintext").upper()
    who = f" as {options['sasl.username']}" if protocol.startswith("SASL") and options.get("sasl.username") else ""
    bootstrap = {address: _refused(*_split(address)) for address in kafka.bootstrap_servers.split(",")}
    facts = judge.ReachFacts(protocol + who, bootstrap, None, {})
    if all(facts.bootstrap.values()):
        return facts
    try:
        admin = Admin(kafka)
        with suppress(TopicError):  # Kafka answers, and this user may not see the topic: another check says so
            admin.partitions(names.sequences)
        brokers = list(admin.client.list_topics(names.sequences, timeout=REQUEST_TIMEOUT_S).brokers.values())
    except KafkaException as error:
        return facts._replace(error=admin.failed(error, "its brokers"))
    except SlipstreamError as error:
        return facts._replace(error=error)
    said = [(str(broker.host), broker.port) for broker in brokers[:_MOST_BROKERS]]
    return facts._replace(advertised={f"{host}:{port}": _refused(host, port) for host, port in said})


def _split(address: str) -> tuple[str, int | None]:
    """Host and port of `host:port`, `host`, `[::1]:port` or `SSL://host:port`; None: the port is no number."""
    bare = address.strip().partition("://")[2] or address.strip()
    host, colon, port = bare.rpartition(":")
    if not colon or bare.endswith("]"):
        return bare.strip("[]"), _DEFAULT_PORT
    return host.strip("[]"), int(port) if port.isdigit() else None


def _refused(host: str, port: int | None) -> str:
    """Why no TCP connection can be made, "" if it can."""
    if port is None or not 0 < port < 1 << 16:
        return "not host:port"
    try:
        with socket.create_connection((host, port), timeout=_CONNECT_S):
            return ""
    except socket.gaierror:
        return "this name is not known here"
    except TimeoutError:
        return f"no answer within {_CONNECT_S:.0f} s"
    except OSError as error:
        return (error.strerror or str(error)).lower()


def _prefixes(admin: Admin, names: Names) -> list[str]:
    """Of other deployments on the cluster, as far as this user sees them; what looks like a mistyped one first."""
    try:
        topics = admin.client.list_topics(timeout=REQUEST_TIMEOUT_S).topics
    except KafkaException:
        return []
    found = {topic.removesuffix(_SUFFIX) for topic in topics if topic.endswith(_SUFFIX)}
    return get_close_matches(names.prefix, found - {names.prefix}, n=5, cutoff=0)


def _clock(kafka: KafkaConfig, admin: Admin, topic: str, partitions: int) -> Finding:
    try:
        return judge_clock(judge.CLOCK, "Kafka", broker_clock(kafka, admin, topic, partitions))
    except (SlipstreamError, KafkaException) as error:
        advice = f"give this user the right to read {topic} and the group {readers_group(topic)}"
        return Finding(judge.CLOCK, Level.WARN, f"records of {topic} cannot be read: {error}", advice)


def broker_clock(kafka: KafkaConfig, admin: Admin, topic: str, partitions: int) -> ClockFacts | None:
    """The broker's clock, from arrival times that it wrote: a record that arrives now tells it, an older one only how late it is
    there at least. None: there is no such record."""
    ends = end_offsets(admin, [(topic, partition) for partition in range(partitions)])
    newest = [TopicPartition(topic, partition, max(0, end - 1)) for (_, partition), end in ends.items()]
    consumer = make(Consumer, kafka.client(group_id=readers_group(topic), enable_auto_commit=False), kafka)
    ahead_ms: list[int] = []
    try:
        consumer.assign(newest)
        until_s = time.monotonic() + _RECORD_S
        while (message := consumer.poll(max(0.0, until_s - time.monotonic()))) is not None:
            if (error := message.error()) is not None:
                raise KafkaException(error)
            kind, arrived_ms = message.timestamp()
            if kind != TIMESTAMP_LOG_APPEND_TIME:
                return None
            ahead_ms.append(arrived_ms - time.time_ns() // 1_000_000)
            if int(message.offset() or 0) >= ends[topic, int(message.partition() or 0)]:  # it came while we waited
                return ClockFacts(ahead_ms[-1], _ON_THE_WAY_MS)
    finally:
        consumer.close()
    return ClockFacts(max(ahead_ms), _ON_THE_WAY_MS, at_least=True) if ahead_ms else None
