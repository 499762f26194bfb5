"""Run: pytest tests/stream/test_in_flight.py"""

from __future__ import annotations

from stream.in_flight import InFlight


def test_offsets_are_safe_once_all_earlier_passes_are_delivered() -> None:
    flights = InFlight()
    first, second, third = flights.begin({0: 10}), flights.begin({0: 20, 1: 5}), flights.begin({1: 9})
    first.undelivered, second.undelivered, third.undelivered = 2, 1, 0
    assert flights.settle() == {}
    second.undelivered = 0
    assert flights.settle() == {}, "the first pass is still under way"
    first.undelivered -= 1
    assert flights.settle() == {}
    first.undelivered -= 1
    assert flights.settle() == {0: 20, 1: 9}
    assert len(flights) == 0
    assert flights.settle() == {}


def test_a_pass_without_messages_is_delivered() -> None:
    flights = InFlight()
    flights.begin({2: 7})
    assert flights.settle() == {2: 7}


def test_forgotten_partitions_are_not_committed() -> None:
    flights = InFlight()
    begun = flights.begin({0: 10, 1: 20})
    begun.undelivered = 1
    flights.forget({0, 5})
    begun.undelivered = 0
    assert flights.settle() == {1: 20}
