"""What of the past is worked off when: the pure half of backfill."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoder.backfill import BackfillConfig, Pacer, Progress, Range, backfill_range
from encoder.backfill_partition import BackfillPartition
from encoder.changelog import ChangelogRecord
from schemas.backfill import BackfillNote, decode_note, encode_note
from schemas.errors import ConfigError
from schemas.sequence import Sequence, encode_sequence
from tests.encoder.histories import events

WINDOW = 24


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize(
    ("committed", "low", "end", "expected"),
    [
        (None, 0, 1001, Range(0, 1001)),  # a new model
        (None, 40, 1001, None),
        (500, 0, 1501, Range(500, 1501)),
        (500, 0, 1500, None),  # not far enough
        (500, 700, 2000, Range(700, 2000)),  # what was committed is deleted
        (9000, 0, 2000, Range(0, 2000)),  # another topic's offset
        (2000, 0, 2000, None),
        (None, 0, 0, None),
    ],
)
def test_what_is_far_behind(committed: int | None, low: int, end: int, expected: Range | None) -> None:
    assert backfill_range(committed, low, end, BackfillConfig(from_records=1000)) == expected


def test_in_its_order_for_comparison() -> None:
    assert backfill_range(None, 0, 10_000, BackfillConfig(live_first=False)) is None


@pytest.mark.parametrize("wrong", [{"from_records": -1}, {"share": 0.0}, {"share": 1.5}, {"run_ms": 0.0}])
def test_settings_that_cannot_work(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="backfill_"):
        BackfillConfig(**wrong)  # type: ignore[arg-type]


def test_while_live_records_come_it_gets_its_share_and_no_more() -> None:
    clock = Clock()
    pacer = Pacer(BackfillConfig(share=0.25), clock)
    ran_s = 0.0
    for _ in range(100_000):  # live records all the time, each a millisecond's work
        pacer.live_came()
        clock.now_s += 0.001
        if not pacer.pause_s():
            clock.now_s += 0.02
            ran_s += 0.02
            pacer.ran(0.02, 0.02, 100, 100)
    assert ran_s / (clock.now_s - 100) == pytest.approx(0.25, rel=0.05)


def test_when_none_come_any_more_it_has_all_the_time() -> None:
    clock = Clock()
    pacer = Pacer(BackfillConfig(share=0.01), clock)
    pacer.ran(1.0, 1.0, 1, 1)
    assert pacer.pause_s() == pytest.approx(1.0), "at the start nobody knows whether any come"
    clock.now_s += 1.0
    assert pacer.pause_s() == 0
    pacer.ran(1.0, 1.0, 1, 1)
    assert pacer.pause_s() == 0
    pacer.live_came()
    assert pacer.pause_s() > 0


def run_often(pacer: Pacer, seconds_of: Callable[[int], float], overhead_s: float = 0.0) -> list[int]:
    """Runs of users with 200 events each; how many users each had."""
    sizes = []
    for _ in range(60):
        sizes.append(max(1, int(pacer.begin() // 200)))
        graph_s = seconds_of(sizes[-1])
        pacer.ran(graph_s + overhead_s, graph_s, 200 * sizes[-1], 200 * sizes[-1])
    return sizes


def test_runs_become_as_long_as_they_may_be() -> None:
    clock = Clock()
    pacer = Pacer(BackfillConfig(run_ms=20), clock)
    sizes = run_often(pacer, lambda users: 0.001 * users)
    assert sizes[0] == 1, "the first one is to find out"
    assert max(sizes) <= 25
    assert sizes[-1] in range(18, 22)
    assert run_often(pacer, lambda users: 0.1 * users)[-1] == 1, "one user goes through, whatever it takes"
    assert run_often(pacer, lambda users: 0.001 * users)[-1] in range(18, 22)
    clock.now_s += 60
    assert run_often(pacer, lambda users: 0.001 * users)[-1] in range(90, 110), "nobody has to wait"
    pacer.live_came()
    assert run_often(pacer, lambda users: 0.001 * users)[0] in range(18, 22)
    # What a run costs beside its users is no reason for one by one.
    assert run_often(pacer, lambda users: 0.001 * users, overhead_s=0.002)[-1] in range(16, 20)
    assert run_often(pacer, lambda users: 0.001 * users, overhead_s=0.030)[-1] in range(27, 33)
    assert run_often(pacer, lambda users: 0.001 * users, overhead_s=0.090)[-1] in range(8, 12), "100 ms are the most"
    assert run_often(pacer, lambda users: 0.001 * users, overhead_s=1.0)[-1] == 1


def test_little_is_learnt_from_runs_that_say_little() -> None:
    pacer = Pacer(BackfillConfig(run_ms=20), Clock())
    run_often(pacer, lambda users: 0.001 * users)
    before = pacer.begin()
    for _ in range(20):
        pacer.ran(0.001, 0.0, 4000, 0)  # the states were made already
        pacer.ran(0.002, 0.001, 10, 10)  # there was little to do
    assert pacer.begin() == before


def test_progress_knows_what_is_left() -> None:
    clock = Clock()
    progress = Progress(clock)
    assert progress.left_s(10) is None
    passed = 0
    for _ in range(100):
        clock.now_s += 1
        passed += 50
        progress.update(passed)
        progress.update(passed)  # at the same moment
    assert progress.per_s == pytest.approx(50)
    assert progress.left_s(1000) == pytest.approx(20)
    for _ in range(200):
        clock.now_s += 1
        passed += 10
        progress.update(passed)
    assert progress.per_s == pytest.approx(10, rel=0.01), "it follows"


def test_the_note_says_all() -> None:
    note = BackfillNote("w", 1200, 17.5, 3.25)
    assert decode_note(encode_note(note)) == note
    assert decode_note(encode_note(BackfillNote("w", 1, 0.0))) == BackfillNote("w", 1, 0.0, None)
    assert decode_note(None) is decode_note("") is decode_note("another tool's") is decode_note('{"end":"x"}') is None


def record(user: bytes | None, offset: int, n: int = 3, value: bytes | None = b"") -> ChangelogRecord:
    sequence = encode_sequence(Sequence(0, events(list(range(1, n + 1)))))
    return ChangelogRecord(user, sequence if value == b"" else value, 0, offset, 0)


def offsets(partition: BackfillPartition, n: int = 100, room: int = 10_000) -> list[int]:
    return [held.record.offset for held in partition.take(room, n)]


def test_a_user_is_worked_off_once_where_the_log_is_not_compacted() -> None:
    partition = BackfillPartition(Range(10, 20), WINDOW)
    for offset, user in zip(range(10, 15), [b"a", b"b", b"a", b"c", b"b"], strict=True):
        partition.put(record(user, offset), 0)
    assert partition.first_undone == 12, "what gave way needs no work"
    assert offsets(partition, 1) == [12]
    assert partition.first_undone == 13
    assert offsets(partition) == [13, 14]
    assert partition.first_undone == partition.next_offset == 15
    assert not partition.is_read
    partition.skip_to(99)
    assert partition.is_read
    assert partition.first_undone == 20


def test_a_run_is_of_so_many_events() -> None:
    partition = BackfillPartition(Range(0, 100), WINDOW)
    for offset, n in enumerate([500, 5, 5, 0, 15]):
        partition.put(record(b"%d" % offset, offset, n), offset)
    assert [held.events for held in partition.take(1, 9)] == [WINDOW], (
        "one goes through, and the window is all it costs"
    )
    assert [held.events for held in partition.take(11, 9)] == [5, 5, 1]
    assert [held.read_ms for held in partition.take(1, 9)] == [4]
    assert partition.take(1, 9) == []


def test_what_a_live_user_had_before_is_not_wanted() -> None:
    partition = BackfillPartition(Range(0, 100), WINDOW)
    partition.put(record(b"a", 0), 0)
    partition.put(record(b"b", 1), 0)
    partition.saw_live(b"a")
    partition.put(record(b"a", 2), 0)
    assert offsets(partition) == [1]
    assert partition.first_undone == 3


def test_what_cannot_be_read_displaces_nothing() -> None:
    """Its error is told by who folds the run, and what the user had before counts."""
    partition = BackfillPartition(Range(0, 100), WINDOW)
    partition.put(record(b"a", 0), 0)
    partition.put(record(b"a", 1, value=b"junk"), 0)
    partition.put(record(None, 2), 0)
    partition.put(record(b"b", 3), 0)
    partition.put(record(b"b", 4, value=None), 0)  # a tombstone does
    assert offsets(partition) == [0, 1, 2, 4]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(0, 5)),
            st.tuples(st.just("live"), st.integers(0, 5)),
            st.tuples(st.just("take"), st.integers(1, 3)),
        ),
        max_size=60,
    )
)
def test_nothing_before_the_first_undone_offset_is_still_needed(steps: list[tuple[str, int]]) -> None:
    """Whatever comes in whatever order: who crashes and reads on from there ends where the whole log does."""
    partition = BackfillPartition(Range(0, 1000), WINDOW)
    log: list[bytes] = []
    live: set[bytes] = set()
    state: dict[bytes, int] = {}
    for step, n in steps:
        user = b"%d" % n
        if step == "put":
            partition.put(record(user, len(log)), 0)
            log.append(user)
        elif step == "live":
            partition.saw_live(user)
            live.add(user)
        else:
            for held in partition.take(10_000, n):
                assert held.record.user is not None
                assert held.record.offset > state.get(held.record.user, -1)
                state[held.record.user] = held.record.offset
        resumed = {**state, **{u: i for i, u in enumerate(log) if i >= partition.first_undone}}
        newest = {u: i for i, u in enumerate(log)}
        assert {u: i for u, i in newest.items() if u not in live} == {u: i for u, i in resumed.items() if u not in live}
