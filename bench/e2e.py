"""`slipstream bench e2e`: from an event's arrival in the raw topic until a ranker could read its user's state.

Ingest, sequence and encode, one process each, beside their Kafka and Redis. The encoder itself says when a state was readable (in
its refresh log); the arrival is the broker's time of the raw record.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from bench.events import Workload, histories, raw_events, user_key
from bench.latency import send_steadily
from bench.models import random_bundle
from bench.path import Lab
from bench.programs import Program, caught_up, metric, owns_partitions, wait_until
from bench.result import Result
from bench.topics import delete_topics, seed_changelog
from edge.kafka import Admin
from encoder.store_redis import connect
from slipstream.stack.process import free_port
from stream.topics import create_topics

Say = Callable[[str], None]

_WARM_UP_S = 5.0


@dataclass(frozen=True)
class EndToEnd:
    """
    Attributes:
        rate: events per second; each is of another user, as far as there are users.
        length: events of each user's sequence at the start.
    """

    preset: str = "small"
    rate: float = 1000.0
    seconds: float = 60.0
    users: int = 4000
    length: int = 200
    partitions: int = 4


def run(config: EndToEnd, lab: Lab, say: Say) -> Result:
    """States of all users are made first, so that what is measured are appends, and now and then a window anchored anew."""
    names, directory = lab.fresh("e2e")
    kafka, admin = lab.kafka, Admin(lab.kafka)
    bundle = random_bundle(directory / "model", config.preset)
    create_topics(kafka, names, config.partitions)
    workload = Workload(int(config.rate * (config.seconds + _WARM_UP_S)), config.users)
    first_ms = int(time.time() * 1000) - workload.events
    seed_changelog(kafka, names, config.partitions, histories(config.users, config.length, first_ms))
    _, values, _, _ = raw_events(workload, first_ms)
    # Round robin: two events of one user are as far apart as can be.
    order = np.arange(workload.events) % config.users
    values = [_of_user(value, user) for value, user in zip(values, order.tolist(), strict=True)]
    keys = [user_key(user) for user in order.tolist()]
    common = {"kafka": kafka.bootstrap_servers, "prefix": names.prefix}
    port, refreshes = free_port(), directory / "refreshes.jsonl"
    hot_cache_bytes = 2 * config.users * bundle.layout.value_bytes(bundle.shape.context)
    encode = {
        "redis_url": lab.stack.redis_url,
        "bundle": str(bundle.directory),
        "refresh_log": str(refreshes),
        "hot_cache_bytes": hot_cache_bytes,
    }
    group = names.encoder_group(bundle.model_id)
    with ExitStack() as stack:
        programs = [
            stack.enter_context(Program.worker("ingest", common, directory)),
            stack.enter_context(Program.worker("sequence", {**common, "metrics_port": port}, directory)),
            stack.enter_context(Program.worker("encode", {**common, **encode}, directory)),
        ]
        say(f"first states of {config.users:,} users")
        wait_until(
            "the workers are ready, and every user has a state",
            lambda: (
                metric(port, "slipstream_sequence_ready") == 1
                and owns_partitions(admin, names.ingest_group, names.engagements, config.partitions)
                and caught_up(admin, group, names.sequences)
            ),
            programs,
            600,
        )
        say(f"{config.rate:,.0f} events/s for {config.seconds:.0f} s")
        sent = send_steadily(kafka, names.engagements, keys, values, config.rate, programs)
        wait_until(
            "every event is in a state",
            lambda: (
                caught_up(admin, names.ingest_group, names.engagements)
                and caught_up(admin, names.sequence_app, names.batches)
                and caught_up(admin, group, names.sequences)
            ),
            programs,
        )
    lines = [msgspec.json.decode(line) for line in refreshes.read_bytes().splitlines()]
    lines = [line for line in lines if line["arrived_ms"] >= sent.began_ms + 1000 * _WARM_UP_S]
    took_ms = np.array([line["written_ms"] - line["arrived_ms"] for line in lines], np.float64)
    kinds = {kind: sum(line["kind"] == kind for line in lines) for kind in sorted({line["kind"] for line in lines})}
    with connect(lab.stack.redis_url) as client:
        client.flushdb()
    delete_topics(admin, [names.engagements, names.batches, names.sequences, names.dead_letters])
    p50, p90, p99 = np.percentile(took_ms, [50, 90, 99])
    figures = {
        "event_to_state_ms_p50": float(p50),
        "event_to_state_ms_p99": float(p99),
        "events_per_s": workload.events / sent.seconds,
    }
    details = {
        "ms": {"p50": float(p50), "p90": float(p90), "p99": float(p99), "max": float(took_ms.max())},
        "refreshes": len(lines),
        "kinds": kinds,
        "cores": sent.cores,
        "histogram": _histogram(took_ms),
    }
    return Result("e2e", figures, asdict(config), details)


def _of_user(value: bytes, user: int) -> bytes:
    """A raw event, given to another user."""
    return b'{"user_id":"%s",%s' % (user_key(user), value.split(b",", 1)[1])


def _histogram(ms: NDArray[np.float64]) -> list[int]:
    """By 5 ms, to 500."""
    counts: list[int] = np.histogram(ms, np.arange(0, 501, 5))[0].tolist()
    return counts
