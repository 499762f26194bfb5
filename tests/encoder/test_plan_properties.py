"""The planner over whole lives of a user, with the oracle's rule as judge. Alone: pytest tests/encoder/test_plan_properties.py

tests/encoder/test_plan.py has what one plan must be.
"""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from encoder.plan import PlanKind, plan
from schemas.sequence import NO_RECORDS, RECORD, Records, sort_records

# Few distinct values, so that lists share prefixes, and records that differ in one field alone.
record = st.tuples(st.integers(0, 60), st.integers(0, 2), st.integers(0, 1), st.integers(0, 1))
Row = tuple[int, int, int, int]


def as_records(rows: set[Row]) -> Records:
    return sort_records(np.array(list(rows), RECORD)) if rows else NO_RECORDS


@st.composite
def lives(draw: st.DrawFn) -> list[Records]:
    """A user's sequences one after the other: events come, late ones too, some are forgotten, the table keeps the newest."""
    keeps = draw(st.integers(1, 40), label="capacity of the table")
    rows: set[Row] = set()
    sequences = []
    for _ in range(draw(st.integers(1, 8))):
        rows |= set(draw(st.lists(record, max_size=12)))
        if draw(st.integers(0, 5)) == 0:
            forgotten_ms = draw(st.integers(0, 60))
            rows = {row for row in rows if row[0] > forgotten_ms}
        sequences.append(as_records(rows)[-keeps:])
        rows = {(int(r[0]), int(r[1]), int(r[2]), int(r[3])) for r in sequences[-1].tolist()}
    return sequences


def common_prefix(a: Records, b: Records) -> int:
    """Event by event."""
    same = 0
    while same < min(len(a), len(b)) and a[same] == b[same]:
        same += 1
    return same


@given(lives(), st.integers(2, 30), st.data())
def test_a_state_keeps_to_the_rule_all_its_life(life: list[Records], capacity: int, data: st.DataObject) -> None:
    keep = data.draw(st.integers(1, capacity - 1), label="keep")
    state = NO_RECORDS
    for sequence in life:
        made = plan(state, sequence, capacity, keep)
        m, n = len(sequence), len(made.wanted)
        if not m:
            assert made.kind is PlanKind.DELETE
            state = NO_RECORDS
            continue
        # The oracle's rule (encoder/oracle.py).
        assert min(keep, m) <= n <= capacity
        assert made.wanted.tobytes() == sequence[m - n :].tobytes()
        # As much is kept as can be: all that is common, but for the last event, whose embedding must be made.
        common = common_prefix(state, made.wanted)
        if made.kind is PlanKind.HIT:
            assert common == n == len(state)
        else:
            assert made.kept in {common, n - 1}
            assert made.kept <= common
        # What is made is what was asked for: asked again, there is nothing to do.
        assert plan(made.wanted, sequence, capacity, keep)[:2] == (PlanKind.HIT, n)
        state = made.wanted


@given(lives(), lives(), st.integers(2, 30), st.data())
def test_any_state_of_anybody_is_a_start(
    mine: list[Records], another: list[Records], capacity: int, data: st.DataObject
) -> None:
    """Whatever is found in Redis, the plan makes what the sequence asks for, and keeps nothing else."""
    keep = data.draw(st.integers(1, capacity - 1), label="keep")
    found, sequence = another[-1][:capacity], mine[-1]
    made = plan(found, sequence, capacity, keep)
    assert made.wanted.tobytes() == sequence[len(sequence) - len(made.wanted) :].tobytes()
    assert made.wanted[: made.kept].tobytes() == found[: made.kept].tobytes()
    assert len(made.wanted) >= min(keep, len(sequence))
