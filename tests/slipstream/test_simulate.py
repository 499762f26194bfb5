"""The path in one process: right by the oracles, and the same bits however users are batched."""

from __future__ import annotations

import numpy as np
import pytest

from encoder.bundle import Bundle
from encoder.oracle import Claim, check_states
from encoder.runtime import Runtime
from encoder.store_memory import MemoryStateStore
from schemas.bundle import ModelShape
from schemas.event import ParserConfig, encode_forget
from schemas.log import EventLog
from schemas.sequence import EMPTY, RECORD, Sequence, decode_sequence, encode_sequence, merge
from schemas.state import State, decode_state
from schemas.vocabulary import Vocabulary
from slipstream.simulate import SimulateConfig, Simulation, messages, simulate
from tests.bundles import random_bundle

START_MS = 1_767_225_600_000


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Its window is short, so that users come to its end, and anchor anew, within few events."""
    shape = ModelShape(layers=2, d_model=32, heads=2, kv_heads=1, context=24, keep=18, rows=512)
    return random_bundle(tmp_path_factory.mktemp("simulate") / "bundle", shape)


def made_log(events: int, users: int, seed: int = 0) -> EventLog:
    """Some users far more active than others; a tenth of the events late."""
    rng = np.random.default_rng(seed)
    records = np.zeros(events, RECORD)
    records["timestamp_ms"] = START_MS + np.cumsum(rng.integers(1, 5000, events))
    late = rng.random(events) < 0.1
    records["timestamp_ms"][late] -= rng.integers(1, 200_000, late.sum())
    records["item_id"] = rng.integers(1, 300, events)
    records["action"] = rng.integers(0, 7, events)
    records["surface"] = rng.integers(0, 6, events)
    owner = (users * rng.random(events) ** 2).astype(np.int32)
    return EventLog([f"u{u}" for u in range(users)], owner, records, Vocabulary())


def contents(store: MemoryStateStore) -> dict[bytes, tuple[bytes, bytes]]:
    """Slots (events among them) and embedding of every state."""
    states = {user: decode_state(value, store.layout) for user, value in store.values.items()}
    return {user: (s.slots.tobytes(), s.header.embedding.tobytes()) for user, s in states.items() if s is not None}


def run(bundle: Bundle, log: EventLog, batch_events: int = 20, **config: object) -> tuple[Simulation, MemoryStateStore]:
    store = MemoryStateStore(bundle.layout)
    simulation = Simulation(bundle, store, SimulateConfig(**config))  # type: ignore[arg-type]
    for start in range(0, len(log), batch_events):
        simulation.feed(messages(log[start : start + batch_events]), START_MS * 2)
    return simulation, store


def by_oracle(log: EventLog, capacity: int = 256) -> dict[bytes, bytes]:
    """Every user's sequence, merged event by event."""
    sequences: dict[bytes, Sequence] = {}
    for user, record in zip(log.user_index.tolist(), log.records, strict=True):
        key = log.users[user].encode()
        sequences[key] = merge(sequences.get(key, EMPTY), Sequence(0, np.array([record], RECORD)), capacity)
    return {user: encode_sequence(sequence) for user, sequence in sequences.items()}


def test_sequences_and_states_are_the_oracles(bundle: Bundle) -> None:
    log = made_log(1500, 23)
    simulation, store = run(bundle, log)
    assert simulation.sequences == by_oracle(log)
    claims = [
        Claim(user, decode_sequence(value).records, stored)
        for (user, value), stored in zip(
            simulation.sequences.items(), store.load(list(simulation.sequences)), strict=True
        )
    ]
    assert check_states(Runtime(bundle), bundle.features, bundle.layout, claims) == []
    assert all(isinstance(claim.stored, State) for claim in claims)
    report = simulation.report()
    assert (report.events, report.users, report.states, report.dead_letters) == (1500, len(claims), len(claims), 0)
    assert {"append", "suffix", "full"} <= set(report.refreshes), "anchoring and late events took part"
    assert report.encoded_events > 1500


# The same bits


def test_a_users_states_do_not_depend_on_who_is_batched_with_it(bundle: Bundle) -> None:
    """Each user of a crowd, in the same groups of events, against the user all alone: other B, other padding."""
    log = made_log(600, 9)
    _, together = run(bundle, log, batch_events=30)
    whole = contents(together)
    for user in range(len(log.users)):
        store = MemoryStateStore(bundle.layout)
        simulation = Simulation(bundle, store, SimulateConfig())
        for start in range(0, len(log), 30):
            chunk = log[start : start + 30]
            mine = chunk.user_index == user
            alone = EventLog(log.users, chunk.user_index[mine], chunk.records[mine], log.vocabulary)
            simulation.feed(messages(alone), START_MS * 2)
        key = log.users[user].encode()
        assert contents(store) == ({key: whole[key]} if key in whole else {})


@pytest.mark.parametrize(
    "config",
    [{"partitions": 1}, {"partitions": 7}, {"max_batch_users": 1}, {"max_batch_users": 3}, {"hot_cache_bytes": 0}],
    ids=str,
)
def test_nothing_about_the_workers_shows_in_the_content(bundle: Bundle, config: dict[str, int]) -> None:
    log = made_log(800, 15)
    simulation, store = run(bundle, log)
    other, other_store = run(bundle, log, **config)
    assert other.sequences == simulation.sequences
    assert contents(other_store) == contents(store)


def test_the_same_run_gives_the_same_values_but_for_revisions(bundle: Bundle) -> None:
    log = made_log(300, 5)
    (_, a), (_, b) = (run(bundle, log, topic_id=bytes(16)) for _ in range(2))
    for user, value in a.values.items():
        one, other = decode_state(value, a.layout), decode_state(b.values[user], b.layout)
        assert one is not None
        assert other is not None
        assert one.header._replace(revision=b"", embedding=None) == other.header._replace(revision=b"", embedding=None)  # type: ignore[arg-type]


def test_grouping_order_and_repetition_do_not_change_sequences(bundle: Bundle) -> None:
    log = made_log(700, 11)
    sequences = run(bundle, log)[0].sequences
    shuffled = np.random.default_rng(3).permutation(np.concatenate([np.arange(len(log)), np.arange(0, len(log), 7)]))
    repeated = EventLog(log.users, log.user_index[shuffled], log.records[shuffled], log.vocabulary)
    for other, batch_events in ((log, 1), (log, 700), (repeated, 13)):
        assert run(bundle, other, batch_events)[0].sequences == sequences


def test_a_store_that_was_used_before_is_built_upon(bundle: Bundle) -> None:
    log = made_log(300, 5)
    simulation, store = run(bundle, log)
    before = contents(store)
    again = Simulation(bundle, store, SimulateConfig())
    again.feed(messages(log), START_MS * 2)
    assert again.sequences == simulation.sequences
    assert set(again.report().refreshes) == {"hit"}
    assert contents(store) == before


# What is no event


def test_dead_letters_are_counted_and_stop_nothing(bundle: Bundle) -> None:
    log = made_log(40, 3)
    simulation = Simulation(bundle, MemoryStateStore(bundle.layout))
    fed = simulation.feed([b"junk", *messages(log), None, b'{"user_id": 5, x'], START_MS * 2)
    assert [(rejected.at, rejected.reason) for rejected in fed.rejected] == [
        (0, "not_json"), (41, "null_value"), (42, "not_json"),
    ]  # fmt: skip
    assert simulation.sequences == by_oracle(log)
    report = simulation.report()
    assert (report.events, report.dead_letters, report.reasons) == (43, 3, {"not_json": 2, "null_value": 1})
    assert "3 dead letters: 2 not_json, 1 null_value" in str(report)


def test_only_dead_letters(bundle: Bundle) -> None:
    simulation = Simulation(bundle, MemoryStateStore(bundle.layout))
    assert simulation.feed([b"", b"[]"], START_MS).updates == []
    assert simulation.feed([], START_MS).rejected == []
    assert simulation.report().dead_letters == 2


def test_names_that_the_model_does_not_know_are_dead_letters_unless_told_otherwise(bundle: Bundle) -> None:
    log = made_log(30, 3)
    actions = ("other", "view", "click", "like", "save", "share", "zap")
    renamed = EventLog(log.users, log.user_index, log.records, Vocabulary(actions=actions))
    zaps = int((log.records["action"] == 6).sum())
    assert run(bundle, renamed)[0].report().reasons == {"unknown_action": zaps}
    lenient = ParserConfig(unknown_names="other")
    assert run(bundle, renamed, parser=lenient)[0].report().dead_letters == 0


def test_a_forgotten_user_has_no_state_and_stays_forgotten(bundle: Bundle) -> None:
    log = made_log(60, 1)
    store = MemoryStateStore(bundle.layout)
    simulation = Simulation(bundle, store)
    simulation.feed(messages(log), START_MS * 2)
    assert set(contents(store)) == {b"u0"}
    simulation.feed([encode_forget("u0", START_MS * 2)], START_MS * 2)
    simulation.feed(messages(log), START_MS * 2)
    assert contents(store) == {}
    assert decode_sequence(simulation.sequences[b"u0"]).records.tolist() == []
    report = simulation.report()
    assert (report.users, report.states) == (1, 0)


# The function


def test_simulate_reports_and_tells_its_progress(bundle: Bundle) -> None:
    log, store, seen = made_log(95, 7), MemoryStateStore(bundle.layout), list[int]()
    report = simulate(log, bundle, store, batch_events=40, on_progress=seen.append)
    assert seen == [40, 80, 95]
    assert (report.events, report.users, report.states) == (95, len(store.values), len(contents(store)))
    assert sum(report.refreshes.values()) >= report.users
    assert report.events_per_s > 0
    assert f"{report.users} users, {report.states} states" in str(report)


def test_simulated_time_is_the_logs(bundle: Bundle) -> None:
    log, store = made_log(50, 1), MemoryStateStore(bundle.layout)
    simulate(log, bundle, store, batch_events=10)
    state = decode_state(store.values[b"u0"], store.layout)
    assert state is not None
    latest = int(log.records["timestamp_ms"].max())
    assert state.header.arrived_ms == state.header.encoded_ms == latest


def test_simulated_time_never_goes_back(bundle: Bundle) -> None:
    log = made_log(50, 1)
    backwards = EventLog(log.users, log.user_index, log.records[::-1], log.vocabulary)
    store = MemoryStateStore(bundle.layout)
    simulate(backwards, bundle, store, batch_events=10)
    state = decode_state(store.values[b"u0"], store.layout)
    assert state is not None
    assert state.header.arrived_ms == int(log.records["timestamp_ms"].max())


def test_fences_rise_within_each_partition(bundle: Bundle) -> None:
    log, simulation = made_log(400, 20), Simulation(bundle, MemoryStateStore(bundle.layout))
    offsets: dict[int, list[int]] = {}
    partition_of: dict[bytes, int] = {}
    for start in range(0, len(log), 20):
        for update in simulation.feed(messages(log[start : start + 20]), START_MS * 2).updates:
            offsets.setdefault(update.fence.partition, []).append(update.fence.offset)
            assert partition_of.setdefault(update.user, update.fence.partition) == update.fence.partition
    assert len(offsets) == 4
    assert all(seen == list(range(len(seen))) for seen in offsets.values())


def test_an_empty_log(bundle: Bundle) -> None:
    report = simulate(made_log(10, 2)[:0], bundle, MemoryStateStore(bundle.layout))
    assert (report.events, report.users, report.states, report.events_per_s) == (0, 0, 0, 0.0)


def test_messages_are_what_producers_send() -> None:
    log = made_log(2, 2)
    for message, user, record in zip(messages(log), log.user_index, log.records, strict=True):
        assert f'"user_id":"u{user}"'.encode() in message
        assert f'"timestamp_ms":{record["timestamp_ms"]}'.encode() in message
