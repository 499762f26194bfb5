"""Run: pytest tests/stream/test_letters.py"""

from __future__ import annotations

import random

import pytest

from schemas.errors import ConfigError
from schemas.names import HEADER_ORIGINAL_PREFIX, HEADER_REPLAYS, Names
from slipstream.cli.letters_view import printable
from stream.dead_letters import (
    BAD_BATCH,
    BAD_SEQUENCE,
    Headers,
    Provenance,
    dead_letter_headers,
    replay_headers,
    without_value,
)
from stream.letters import FOREIGN, DeadLetter, Place, as_letter
from stream.letters_replay import why_unfit
from stream.letters_report import report_on
from stream.whole_topic import Record

NAMES = Names("p")
NOW_MS = 1767225600000
WHERE = Provenance(NAMES.engagements, 0, 0, NOW_MS)


def letter(
    offset: int,
    reason: str = "not_json",
    topic: str = NAMES.engagements,
    original: Headers | None = None,
    ms: int = NOW_MS,
) -> DeadLetter:
    headers = dead_letter_headers(reason, "why", Provenance(topic, 1, 7, NOW_MS), original or [])
    return as_letter(Record(0, offset, ms, b"k", b"value", headers))


def test_a_place_is_read_as_it_is_printed() -> None:
    assert Place.parse(str(Place(3, 1 << 40))) == Place(3, 1 << 40)


@pytest.mark.parametrize(
    "text", ["", "1", "1:", ":1", "-1:2", "1:-2", "1:2:3", "a:b", " 1:2", "1:2\n", "٣:٤", "1:" + "9" * 30]
)
def test_other_texts_are_no_places(text: str) -> None:
    with pytest.raises(ConfigError, match="PARTITION:OFFSET"):
        Place.parse(text)


def test_counts_by_reason_and_source_with_those_that_came_back_and_those_that_were_replayed() -> None:
    letters = [
        letter(0, ms=NOW_MS + 5),
        letter(1, original=replay_headers([]), ms=NOW_MS),
        letter(2, BAD_BATCH, NAMES.batches),
        letter(3, topic="p2.engagements"),
        as_letter(Record(0, 4, NOW_MS, None, b"", [])),
    ]
    report = report_on(letters, lambda of: of.place.offset < 1, 10)
    assert report.letters == 5
    assert report.counts.keys() == {
        ("not_json", NAMES.engagements),
        (BAD_BATCH, NAMES.batches),
        ("not_json", "p2.engagements"),
        (FOREIGN, ""),
    }
    count = report.counts["not_json", NAMES.engagements]
    assert (count.letters, count.repeated, count.replayed) == (2, 1, 1)
    assert (count.first_ms, count.last_ms) == (NOW_MS, NOW_MS + 5)


def test_the_newest_come_first_and_without_their_values() -> None:
    letters = [letter(i, ms=NOW_MS + i // 3) for i in range(100)]
    random.Random(0).shuffle(letters)
    for most in (0, 1, 7, 1000):
        newest = report_on(letters, lambda _: False, most).newest
        assert [of.place.offset for of in newest] == list(range(99, -1, -1))[:most]
        assert all(of.value is None for of in newest)


def test_a_report_of_some_reasons_and_times() -> None:
    letters = [
        letter(i, reason, ms=NOW_MS + i) for i, reason in enumerate(["not_json", "too_old", "not_json", "too_old"])
    ]
    report = report_on(letters, lambda _: False, 10, ["too_old"], NOW_MS + 1, NOW_MS + 3)
    assert [of.place.offset for of in report.newest] == [1]
    assert report.letters == 1


@pytest.mark.parametrize(
    ("unfit", "why"),
    [
        (letter(0, BAD_SEQUENCE, NAMES.sequences), "changelog"),
        (letter(0, topic="q.engagements"), "topic q.engagements"),
        (letter(0, topic=NAMES.dead_letters), "not one of prefix p"),
        (as_letter(Record(0, 0, NOW_MS, None, b"x", [("a", b"b")])), "not a dead letter"),
        (
            as_letter(Record(0, 0, NOW_MS, None, None, without_value(dead_letter_headers("r", "e", WHERE), 9))),
            "too large for topic",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_replayed(unfit: DeadLetter, why: str) -> None:
    assert why in (why_unfit(unfit, NAMES) or "")


def test_what_can_be_replayed() -> None:
    assert why_unfit(letter(0), NAMES) is None
    assert why_unfit(letter(0, BAD_BATCH, NAMES.batches), NAMES) is None
    assert why_unfit(letter(0, "a reason of a newer build"), NAMES) is None


def test_replays_are_counted_in_one_header() -> None:
    headers: Headers = [("trace", b"\xff"), ("none", None)]
    for n in (1, 2, 3):
        headers = replay_headers(headers)
        assert headers == [("trace", b"\xff"), ("none", None), (HEADER_REPLAYS, b"%d" % n)]
        said = letter(0, original=headers).said
        assert said is not None
        assert said.replays == n
    assert all(not name.startswith(HEADER_ORIGINAL_PREFIX) for name, _ in headers)


@pytest.mark.parametrize("forged", [b"", b"x", b"-1", b"9" * 40, None, "\u0663".encode()])
def test_a_forged_count_of_replays_counts_as_none(forged: bytes | None) -> None:
    assert replay_headers([(HEADER_REPLAYS, forged)]) == [(HEADER_REPLAYS, b"1")]


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (None, "(none)"),
        (b"", ""),
        ("grüße".encode(), "grüße"),
        (b"a\nb\t\x1b[2J\x00", "a\\nb\\t\\x1b[2J\\x00"),
        (b"\xff\xfe", "\\xff\\xfe"),
        ("\u202eevil\u200b".encode(), "\\u202eevil\\u200b"),
        (b"x" * 11, "xxxxxxxxxx … (11 bytes)"),
        (b"x" * 10_000, "xxxxxxxxxx … (10,000 bytes)"),
        (b"\xff" * 41, "\\xff\\xff\\x … (41 bytes)"),
    ],
)
def test_what_is_shown_cannot_drive_a_terminal(data: bytes | None, shown: str) -> None:
    assert printable(data, 10) == shown
