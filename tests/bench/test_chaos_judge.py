"""The judge of a chaos run: it finds what is wrong, and what excuses a worker."""

from __future__ import annotations

import zlib
from pathlib import Path

import pytest

from bench.chaos.judge import events_lost, tracebacks, unexplained, wrong_letters
from bench.chaos.workers import Exit
from stream.dead_letters import Provenance, dead_letter_headers
from stream.oracle import Changelog, Found, Rebuilt, Unreadable, encode
from stream.whole_topic import Record

ROWS = [(10, 1, 0, 0), (20, 2, 0, 0), (30, 3, 0, 0)]


def test_lost_events_are_counted() -> None:
    rebuilt = Rebuilt({b"a": (0, ROWS), b"b": (0, ROWS), b"c": (0, ROWS), b"d": (0, ROWS)})
    whole, part = encode(0, ROWS), encode(0, ROWS[1:])
    sequences = {b"a": Found(whole, 0, 0, 0), b"b": Found(part, 0, 1, 0), b"c": Found(whole[:-1], 0, 2, 0)}
    assert events_lost(rebuilt, Changelog(1, sequences)) == 0 + 1 + 3 + 3


def _letter(partition: int, offset: int, value: bytes, topic: str = "raw") -> Record:
    headers = dead_letter_headers("not_json", "why", Provenance(topic, partition, offset, 0))
    return Record(0, 0, 0, None, value, headers)


def _checksums(*values: bytes) -> dict[int, list[int]]:
    return {0: [zlib.crc32(value) for value in values]}


REBUILT = Rebuilt(unreadable=[Unreadable(0, 1, "not JSON"), Unreadable(0, 2, "not JSON")])


def test_dead_letters_may_come_twice() -> None:
    letters = [_letter(0, 1, b"x"), _letter(0, 2, b"y"), _letter(0, 1, b"x")]
    assert wrong_letters("raw", REBUILT, letters, _checksums(b"{}", b"x", b"y")) == []


@pytest.mark.parametrize(
    ("letters", "said"),
    [
        ([_letter(0, 1, b"x")], "1 malformed messages are not in the dead letters"),
        ([_letter(0, 1, b"x"), _letter(0, 2, b"Y")], "1 dead letters are not as the message was"),
        ([_letter(0, i, v) for i, v in enumerate((b"{}", b"x", b"y"))], "1 dead letters are of messages that can be read"),
        ([_letter(0, 1, b"x"), _letter(0, 2, b"y"), _letter(0, 0, b"b", "batches")], "1 dead letters are of no raw message"),
        ([_letter(0, 1, b"x"), _letter(0, 2, b"y"), Record(0, 9, 0, None, b"?")], "1 dead letters are of no raw message"),
    ],
)  # fmt: skip
def test_wrong_dead_letters_are_found(letters: list[Record], said: str) -> None:
    assert wrong_letters("raw", REBUILT, letters, _checksums(b"{}", b"x", b"y")) == [said]


def _exit(
    code: int, asked: str = "", *, at_s: float = 100, worked: bool = True, said: str = "why", stage: str = "ingest"
) -> Exit:
    return Exit(f"{stage}-0.01", stage, at_s, code, asked, worked, said)


ABSENCES, REFUSALS = [(50.0, 60.0)], [("ingest", 90.0, 95.0)]


@pytest.mark.parametrize(
    "end",
    [
        _exit(-9, "kill"),
        _exit(0, "stop"),
        _exit(-15, "stop", worked=False),
        _exit(7, said="partition 1: another worker owns it now (ProducerFenced)"),
        _exit(7, "stop", said="partition 1: another worker owns it now (ProducerFenced)"),
        _exit(6),
        _exit(5),
    ],
)  # fmt: skip
def test_faults_explain_these(end: Exit) -> None:
    assert unexplained([end], ABSENCES, REFUSALS) == []


@pytest.mark.parametrize(
    "end",
    [
        _exit(-9),  # killed, and not by us
        _exit(-9, "stop"),  # did not end when it was asked to
        _exit(0),
        _exit(-15, "stop"),
        _exit(-11),
        _exit(1),
        _exit(2),
        _exit(7, said="KeyError"),
        _exit(6, at_s=10),  # the broker was there
        _exit(6, at_s=200),
        _exit(5, at_s=80),
        _exit(5, stage="sequence"),
    ],
)
def test_nothing_explains_these(end: Exit) -> None:
    assert unexplained([end], ABSENCES, REFUSALS) == [
        f"{end.worker} ended with exit code {end.code}{', asked to stop' if end.asked else ''}: {end.said}"
    ]


def test_a_redis_that_is_away_explains_what_becomes_of_encoders_alone() -> None:
    encoder, sequencer = _exit(6, stage="encode"), _exit(6, stage="sequence")
    assert unexplained([encoder], [], [], redis_absences=ABSENCES) == []
    assert len(unexplained([sequencer], [], [], redis_absences=ABSENCES)) == 1


def test_tracebacks_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text("INFO all is well\n")
    (tmp_path / "b.log").write_text("Traceback (most recent call last):\n")
    assert tracebacks(sorted(tmp_path.iterdir())) == ["b.log has a traceback"]
