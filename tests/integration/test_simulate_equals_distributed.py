"""`slipstream simulate` and the stages in processes of their own, on real Kafka and Redis, come to the same bytes.

In lock-step: each round sends at most one event per user, and the next one waits until the round's states are readable. So every
user's events arrive in the same groups on both sides, and windows are anchored at the same events.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka import Producer

from edge.kafka import KafkaConfig
from encoder.store_memory import MemoryStateStore
from ranker.reader import StateReader
from ranker.rows import Row
from schemas.bundle import ModelShape
from schemas.event import encode_engagement, encode_forget
from schemas.names import Names
from schemas.state import State, decode_state
from slipstream.pipeline import Pipeline
from slipstream.processes import Stages
from slipstream.simulate import Simulation
from stream.oracle import read_sequences
from stream.topics import create_topics
from tests.bundles import random_bundle

pytestmark = [pytest.mark.integration, pytest.mark.timeout(400)]

USERS, ROUNDS, PARTITIONS = 12, 45, 3
#: Past 24 events a window is anchored anew: active users do so several times.
SHAPE = ModelShape(layers=2, d_model=32, heads=2, kv_heads=1, context=24, keep=18, rows=512)
START_MS = 1_700_000_000_000


def made_rounds() -> list[list[bytes]]:
    """Events, late events, repetitions, malformed messages and a forget request; of a user at most one message a round."""
    rng = np.random.default_rng(11)
    rounds: list[list[bytes]] = []
    sent: dict[int, list[bytes]] = {}
    for at in range(ROUNDS):
        messages = [b"{malformed", b'{"user_id": 5, x'] if at % 9 == 4 else []
        for user in range(USERS):
            if user == 1 and at == 30:  # all that it did: its state goes, and begins anew
                messages.append(encode_forget("u1", START_MS + 29_999))
                continue
            if rng.random() > 0.9 - 0.06 * user:
                continue
            if sent.get(user) and rng.random() < 0.08:
                messages.append(rng.choice(np.array(sent[user], object)))  # a duplicate
                continue
            late_ms = int(rng.integers(0, 9000)) if rng.random() < 0.1 else 0
            item, action, surface = int(rng.integers(1, 300)), rng.choice(["view", "save", "like"]), "home"
            message = encode_engagement(f"u{user}", item, str(action), surface, START_MS + 1000 * at - late_ms)
            sent.setdefault(user, []).append(message)
            messages.append(message)
        rounds.append(messages)
    return rounds


def difference(row: Row, simulated: State | None) -> str | None:
    """In which events a stored state differs from the simulated one; None if in none."""
    if row.state is None or simulated is None:
        return None if row.state is simulated is None else f"{row.user}: {row.status} {row.why}; simulated: {simulated}"
    if row.state.events.tobytes() == simulated.events.tobytes():
        return None
    return f"{row.user}: {row.length} events, simulated {len(simulated.events)}"


def test_the_same_bytes(kafka_bootstrap: str, redis_url: str, prefix: str, tmp_path: Path) -> None:
    bundle, names, kafka = random_bundle(tmp_path / "bundle", SHAPE), Names(prefix), KafkaConfig(kafka_bootstrap)
    create_topics(kafka, names, PARTITIONS, 1)
    pipeline = Pipeline(kafka, redis_url, names, bundle.model_id)
    memory = MemoryStateStore(bundle.layout)
    simulation = Simulation(bundle, memory)
    reader = StateReader(redis_url, bundle, names, deadline_ms=10_000)
    producer = Producer({"bootstrap.servers": kafka_bootstrap, "linger.ms": 0})

    def simulated(user: str) -> State | None:
        value = memory.values.get(user.encode())
        return None if value is None else decode_state(value, bundle.layout)

    with Stages([], tmp_path / "logs", pipeline.environment(bundle.directory)) as stages:
        for stage in ("ingest", "sequence", "encode"):
            stages.start(stage, stage)
        for at, messages in enumerate(made_rounds()):
            fed = simulation.feed(messages, time.time_ns() // 1_000_000)
            for message in messages:
                producer.produce(names.engagements, message)
            assert producer.flush(30) == 0
            users = [update.user.decode() for update in fed.updates]
            deadline = time.monotonic() + 120
            while True:
                stages.check()
                rows = reader.read(users)
                differences = [text for row in rows if (text := difference(row, simulated(row.user))) is not None]
                if not differences:
                    break
                assert time.monotonic() < deadline, f"round {at}: {differences}"
                time.sleep(0.01)
            for row in rows:
                want = simulated(row.user)
                if row.state is not None and want is not None:
                    assert row.state.slots.tobytes() == want.slots.tobytes(), f"round {at}, {row.user}: other slots"
                    assert row.state.header.embedding.tobytes() == want.header.embedding.tobytes(), f"round {at}"
                    assert row.state.header.capacity == want.header.capacity
        deadline = time.monotonic() + 60
        while not pipeline.is_quiet():
            stages.check()
            assert time.monotonic() < deadline, pipeline.lag()
            time.sleep(0.2)

    changelog = read_sequences(kafka, names)
    assert {user: found.value for user, found in changelog.sequences.items()} == simulation.sequences
    report = simulation.report()
    assert pipeline.dead_letters() == report.dead_letters > 0
    everybody = [f"u{user}" for user in range(USERS)]
    assert [difference(row, simulated(row.user)) for row in reader.read(everybody)] == [None] * USERS
    # The rounds were worth it: every kind of refresh took part, and windows were anchored anew.
    assert {"append", "suffix", "full", "delete"} <= set(report.refreshes)
    assert max(len(messages) for messages in made_rounds()) > 5
    assert report.refreshes["full"] > report.users + 2
