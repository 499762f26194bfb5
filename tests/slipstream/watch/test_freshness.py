from __future__ import annotations

import numpy as np
import pytest

from schemas.state import Fence, Header, Kind
from slipstream.watch.freshness import GIVE_UP_MS, MAX_WAITING, FreshnessCurve, Measured, Seen, Waiting

TOPIC = b"t" * 16
ARRIVED_MS = 1_767_225_600_000
RECORD = Seen(b"ada", 1, 10, ARRIVED_MS)


def header(offset: int, encoded_ms: int, partition: int = 1, topic_id: bytes = TOPIC) -> Header:
    fence = Fence(topic_id, partition, offset)
    no_embedding = np.empty(0, np.float16)
    return Header(Kind.STATE, "0" * 16, bytes(8), fence, 1, 16, ARRIVED_MS, ARRIVED_MS, encoded_ms, 0, no_embedding)


def waiting() -> Waiting:
    made = Waiting()
    made.see([RECORD])
    return made


def test_a_record_is_measured_when_the_state_shows_it() -> None:
    made = waiting()
    assert made.measure({b"ada": header(9, ARRIVED_MS + 5)}, TOPIC, ARRIVED_MS + 20) == []
    assert made.oldest_ms(ARRIVED_MS + 20) == 20
    assert made.measure({b"ada": header(10, ARRIVED_MS + 30)}, TOPIC, ARRIVED_MS + 40) == [
        Measured(ARRIVED_MS + 30, 30)
    ]
    assert (len(made), made.oldest_ms(ARRIVED_MS + 40)) == (0, None)


def test_a_state_written_again_is_an_upper_bound_or_nothing() -> None:
    again = {b"ada": header(12, ARRIVED_MS + 90)}
    looked_at = waiting()
    looked_at.measure({b"ada": None}, TOPIC, ARRIVED_MS + 20)
    assert looked_at.measure(again, TOPIC, ARRIVED_MS + 100) == [Measured(ARRIVED_MS + 90, 90)]
    unseen = waiting()
    assert unseen.measure(again, TOPIC, ARRIVED_MS + 100) == []
    assert len(unseen) == 0


@pytest.mark.parametrize("other", [header(10, 1, partition=2), header(10, 1, topic_id=b"o" * 16), None])
def test_what_is_of_another_partition_or_topic_does_not_count(other: Header | None) -> None:
    made = waiting()
    assert made.measure({b"ada": other}, TOPIC, ARRIVED_MS) == []
    assert len(made) == 1
    made.measure({b"ada": other}, TOPIC, ARRIVED_MS + GIVE_UP_MS + 1)
    assert len(made) == 0, "nobody waits for ever"


def test_so_many_wait_at_most_and_each_user_for_the_first_record() -> None:
    made = waiting()
    made.see(RECORD._replace(user=b"%d" % i) for i in range(2 * MAX_WAITING))
    assert len(made) == MAX_WAITING
    made.see([RECORD._replace(offset=11, timestamp_ms=ARRIVED_MS + 50)])
    assert made.measure({b"ada": header(10, ARRIVED_MS + 7)}, TOPIC, ARRIVED_MS + 60)[0].freshness_ms == 7


def test_the_curve_has_a_point_for_each_span_and_forgets() -> None:
    curve = FreshnessCurve(span_ms=1000, kept_ms=10_000)
    curve.add([Measured(1500, 10), Measured(1600, 30), Measured(3000, 100)], 3500)
    first, second = curve.points(3500)
    assert (first.at_ms, first.p50_ms, round(first.p99_ms, 1)) == (2000, 20, 29.8)
    assert (second.at_ms, second.p50_ms) == (4000, 100)
    assert curve.since(1600).tolist() == [30, 100]
    curve.add([], 12_000)
    assert [point.at_ms for point in curve.points(12_000)] == [4000]
