"""Run: pytest tests/stream/test_dead_letters.py"""

from __future__ import annotations

from schemas.names import HEADER_ERROR, HEADER_ORIGINAL_PREFIX, HEADER_REASON
from stream.dead_letters import (
    MAX_ERROR_BYTES,
    Headers,
    Provenance,
    dead_letter_headers,
    read_dead_letter_headers,
    without_value,
)

WHERE = Provenance("p.engagements", 3, 1 << 40, 1767225600000)


def test_round_trip_with_original_headers() -> None:
    original: Headers = [("trace", b"\x00\xff"), ("trace", b"again"), (HEADER_REASON, b"forged"), ("none", None)]
    headers = dead_letter_headers("not_json", "the message is not JSON: grüße", WHERE, original)
    read = read_dead_letter_headers(headers)
    assert read is not None
    assert (read.reason, read.error, read.provenance) == ("not_json", "the message is not JSON: grüße", WHERE)
    assert read.original == original


def test_a_dead_letter_that_is_replayed_and_dies_again_keeps_both_stories() -> None:
    first = dead_letter_headers("not_json", "once", WHERE, [("a", b"b")])
    second = dead_letter_headers("too_large", "twice", WHERE._replace(offset=7), first)
    read = read_dead_letter_headers(second)
    assert read is not None
    assert (read.reason, read.provenance.offset) == ("too_large", 7)
    again = read_dead_letter_headers(read.original)
    assert again is not None
    assert (again.reason, again.provenance, again.original) == ("not_json", WHERE, [("a", b"b")])


def test_long_and_odd_error_texts_are_cut_and_stay_readable() -> None:
    headers = dict(dead_letter_headers("not_json", "ü" * 5000 + "\ud800", WHERE))
    error = headers[HEADER_ERROR]
    assert isinstance(error, bytes)
    assert len(error) == MAX_ERROR_BYTES
    read = read_dead_letter_headers(headers.items())
    assert read is not None
    assert read.error.startswith("üüü")


def test_other_headers_are_no_dead_letter() -> None:
    assert read_dead_letter_headers([]) is None
    assert read_dead_letter_headers([("x", b"y")]) is None
    broken = [(name, b"x" if "offset" in name else value) for name, value in dead_letter_headers("r", "e", WHERE)]
    assert read_dead_letter_headers(broken) is None


def test_without_value_points_to_the_message() -> None:
    bare = without_value(dead_letter_headers("too_large", "why", WHERE, [("big", b"x" * 1000)]), 123)
    read = read_dead_letter_headers(bare)
    assert read is not None
    assert read.provenance == WHERE
    assert "123 bytes" in read.error
    assert read.error.endswith("why")
    assert not [name for name, _ in bare if name.startswith(HEADER_ORIGINAL_PREFIX)]
