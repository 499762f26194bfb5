"""The planner against any two event lists. Run alone: pytest tests/encoder/test_plan.py"""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from encoder.plan import PlanKind, plan
from schemas.sequence import NO_RECORDS, RECORD, Records, sort_records

CAPACITY, KEEP = 256, 192


def events(times: list[int]) -> Records:
    records = np.zeros(len(times), RECORD)
    records["timestamp_ms"] = times
    records["item_id"] = np.asarray(times, np.int64) * 7 + 1
    return records


def steps(start: int, stop: int) -> Records:
    return events(list(range(start, stop)))


# Few distinct values, so that lists share prefixes, and records that differ in one field alone.
record = st.tuples(st.integers(0, 40), st.integers(0, 2), st.integers(0, 1), st.integers(0, 1))


@st.composite
def record_lists(draw: st.DrawFn, max_size: int) -> Records:
    rows = draw(st.lists(record, max_size=max_size, unique=True))
    return sort_records(np.array(rows, RECORD))


@st.composite
def related_lists(draw: st.DrawFn, size: int) -> tuple[Records, Records]:
    """A state and a sequence as life makes them: a window of a history, and the same with events added and taken out."""
    history = draw(st.integers(1, size * 2))
    removed = draw(st.sets(st.integers(0, history - 1), max_size=6))
    start = draw(st.integers(0, history - 1))
    stop = draw(st.integers(start, history))
    state = [t * 10 for t in range(start, stop)]
    late = [t * 10 + 5 for t in draw(st.sets(st.integers(0, history - 1), max_size=6))]
    sequence = sorted([t * 10 for t in range(history) if t not in removed] + late)
    return events(state[-size:]), events(sequence[-draw(st.integers(1, size * 2)) :])


def check(state: Records, sequence: Records, capacity: int, keep: int) -> None:
    made = plan(state, sequence, capacity, keep)
    m = len(sequence)
    if made.kind is PlanKind.DELETE:
        assert m == 0
        assert made.kept == 0
        return
    n = len(made.wanted)
    assert made.wanted.tobytes() == sequence[m - n :].tobytes()
    assert min(keep, m) <= n <= capacity
    assert made.wanted[: made.kept].tobytes() == state[: made.kept].tobytes()
    assert made.new_events.tobytes() == made.wanted[made.kept :].tobytes()
    if made.kind is PlanKind.HIT:
        assert made.kept == n == len(state)
        return
    assert made.kept < n, "a user embedding needs its last event encoded"
    # Longest: the next event differs, unless it is the last, which is encoded for its embedding.
    if made.kept < min(len(state), n - 1) and made.kept:
        assert made.wanted[made.kept] != state[made.kept]
    match made.kind:
        case PlanKind.APPEND:
            assert made.kept == len(state) > 0
        case PlanKind.SUFFIX:
            assert 0 < made.kept < len(state)
        case PlanKind.FULL:
            assert made.kept == 0


@given(record_lists(60), record_lists(60), st.integers(2, 40), st.data())
def test_any_two_lists(state: Records, sequence: Records, capacity: int, data: st.DataObject) -> None:
    check(state, sequence, capacity, data.draw(st.integers(1, capacity - 1)))


@given(related_lists(CAPACITY))
def test_lists_as_life_makes_them(lists: tuple[Records, Records]) -> None:
    check(*lists, CAPACITY, KEEP)


@given(related_lists(12))
@example((steps(0, 12), steps(1, 13)))
def test_small_windows(lists: tuple[Records, Records]) -> None:
    check(*lists, 12, 9)


def test_planning_again_from_the_new_state_is_a_hit() -> None:
    for state, sequence in ((NO_RECORDS, steps(0, 300)), (steps(0, 256), steps(1, 257)), (steps(3, 9), steps(0, 20))):
        wanted = plan(state, sequence).wanted
        assert plan(wanted, sequence)[:2] == (PlanKind.HIT, len(wanted))


def test_an_append_only_stream_is_anchored_anew_once_in_65_events() -> None:
    """And never does more than append one event in between."""
    state, full = NO_RECORDS, []
    for stop in range(1, 1001):
        made = plan(state, steps(max(0, stop - CAPACITY), stop), CAPACITY, KEEP)
        if made.kind is PlanKind.FULL:
            full.append(stop)
        else:
            assert made.kind is PlanKind.APPEND
            assert len(made.new_events) == 1
        state = made.wanted
    assert full == [1, *range(257, 1001, CAPACITY - KEEP + 1)]


def test_kinds() -> None:
    assert plan(NO_RECORDS, NO_RECORDS).kind is PlanKind.DELETE
    assert plan(steps(0, 5), NO_RECORDS).kind is PlanKind.DELETE
    assert plan(NO_RECORDS, steps(0, 5))[:2] == (PlanKind.FULL, 0)
    assert plan(steps(0, 5), steps(0, 5))[:2] == (PlanKind.HIT, 5)
    assert plan(steps(0, 5), steps(0, 8))[:2] == (PlanKind.APPEND, 5)
    assert plan(steps(0, 5), events([0, 1, 2, 4, 5]))[:2] == (PlanKind.SUFFIX, 3)
    assert plan(steps(0, 5), steps(1, 6))[:2] == (PlanKind.FULL, 0)


def test_the_newest_event_deleted_keeps_all_but_the_new_last_one() -> None:
    made = plan(steps(0, 5), steps(0, 4))
    assert (made.kind, made.kept, len(made.new_events)) == (PlanKind.SUFFIX, 3, 1)
    assert plan(steps(0, 5), steps(0, 1))[:2] == (PlanKind.FULL, 0)


def test_a_late_event_before_a_long_window_does_not_matter() -> None:
    sequence = np.concatenate([steps(0, 4), steps(5, 205)])
    state = sequence[1:]
    assert plan(state, sequence).kind is PlanKind.HIT  # 203 of 204, the window needs 192
    assert plan(sequence[1:10], sequence[:10]).kind is PlanKind.FULL  # a short window must hold everything


def test_a_cold_user_with_a_full_sequence_gets_room_to_grow() -> None:
    assert len(plan(NO_RECORDS, steps(0, CAPACITY)).wanted) == KEEP
    assert len(plan(NO_RECORDS, steps(0, CAPACITY - 1)).wanted) == CAPACITY - 1


def test_the_bytes_of_a_record_across_two_others_are_not_that_record() -> None:
    straddling = np.frombuffer(steps(0x0101010101010101, 0x0101010101010103).tobytes()[8:28], RECORD)
    sequence = np.concatenate([steps(0x0101010101010101, 0x0101010101010103), straddling])
    made = plan(straddling, sequence, 8, 6)
    assert made.kind is PlanKind.FULL  # found at its own place, too late for a window of min(6, 3) events
    assert plan(straddling, sequence, 8, 1)[:2] == (PlanKind.HIT, 1)


def test_a_state_that_is_a_strided_view() -> None:
    slots = np.zeros(6, [("event", RECORD), ("kv", "i1", 7)])
    slots["event"] = steps(0, 6)
    assert plan(slots["event"], steps(0, 7))[:2] == (PlanKind.APPEND, 6)
