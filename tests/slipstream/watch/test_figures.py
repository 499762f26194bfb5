from __future__ import annotations

from rich.console import Console

from slipstream.watch.figures import (
    Freshness,
    LagHistory,
    Letter,
    Letters,
    Model,
    Rates,
    Records,
    Snapshot,
    Source,
    Stage,
    lag_of,
    letter_of,
    places_before,
)
from slipstream.watch.view import line, render
from stream.letters import DeadLetter, Place


def test_lag_counts_from_the_commit_to_the_end() -> None:
    ends = {("t", 0): 10, ("t", 1): 5, ("t", 2): 0}
    assert lag_of(ends, {("t", 0): 7}) == 3 + 5
    assert lag_of(ends, {("t", 0): 12, ("t", 1): 5}) == 0


def test_the_markers_behind_the_last_record_are_no_lag() -> None:
    ends, committed = {("t", 0): 10}, {("t", 0): 9}
    assert lag_of(ends, committed, {("t", 0): Records(last=8, passed=10)}) == 0
    assert lag_of(ends, committed, {("t", 0): Records(last=9, passed=10)}) == 1
    assert lag_of(ends, committed, {("t", 0): Records(last=8, passed=9)}) == 1, "what is there was not read yet"
    assert lag_of(ends, committed, {("t", 0): Records(last=-1, passed=10)}) == 1, "no record was seen"


def test_rates_are_over_the_last_seconds_and_over_partitions_known_before() -> None:
    rates = Rates(over_s=10)
    assert rates.per_s("ingest") is None
    rates.add(0, {"ingest": {("t", 0): 100}})
    assert rates.per_s("ingest") is None
    rates.add(5, {"ingest": {("t", 0): 150, ("t", 1): 9000}})
    assert (rates.per_s("ingest"), rates.per_s("encode")) == (10, None)
    rates.add(20, {"ingest": {("t", 0): 150}})
    assert rates.per_s("ingest") is None, "what was before is too long ago"
    rates.add(21, {"ingest": {("t", 0): 3}})
    assert rates.per_s("ingest") == 0, "a topic that was made anew"


def test_the_history_keeps_the_greatest_lag_of_a_span() -> None:
    history = LagHistory(span_ms=1000, kept_ms=3000)
    for at_ms, lag in ((100, 5), (900, 2), (1100, 1), (3900, 7)):
        history.add(at_ms, lag)
    assert history.points == [(1000, 5), (2000, 1), (4000, 7)]
    history.add(4500, 0)
    assert history.points == [(2000, 1), (4000, 7), (5000, 0)]


def test_places_before() -> None:
    assert places_before(None, [7, 8]) == [0, 1]
    assert places_before([7, 8, 9], [9, 7, 5]) == [2, 0, None]


def test_a_message_that_is_no_dead_letter_is_shown_as_such() -> None:
    shown = letter_of(DeadLetter(Place(1, 2), 3, None, b"?", [], None))
    assert (shown.place, shown.source) == ("1:2", "")
    assert "somebody else" in shown.error


SNAPSHOT = Snapshot(
    now_ms=1_767_225_600_000,
    prefix="shop",
    kafka=Source(True, "", 1_767_225_600_000),
    redis=Source(False, "Redis at h:1: refused", None),
    model=Model("0" * 16, ""),
    freshness=Freshness(60, 12, 21.4, 88.0, 3, 12_000, []),
    arriving_per_s=4.2,
    stages=[Stage("ingest", "messages", 1234, 4.1, []), Stage("encode", "changelog offsets", None, None, [])],
    letters=Letters(2, 1, [Letter("0:1", 1_767_225_600_000, "bad_json", "shop.engagements[0]@4", "\x1b[31mred")]),
)


def test_the_terminal_shows_the_same() -> None:
    console = Console(width=160, record=True, force_terminal=False)
    with console.capture() as captured:
        console.print(render(SNAPSHOT))
    shown = captured.get()
    for said in (
        "1,234",
        "p99 88 ms",
        "Redis: Redis at h:1: refused",
        "the oldest for 12 s",
        "bad_json",
        r"\x1b[31mred",
    ):
        assert said in shown
    assert "\x1b" not in shown
    assert "lag: ingest 1,234 encode -" in line(SNAPSHOT)
