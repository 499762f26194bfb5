"""`slipstream dead-letters` as a person meets it, on real Kafka. Run: pytest tests/integration/test_dead_letters_cli.py"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Producer

from schemas.batch import Batch, encode_batch
from schemas.event import encode_engagement
from schemas.names import HEADER_REPLAYS
from schemas.sequence import RECORD, Sequence, encode_sequence
from schemas.vocabulary import DEFAULT_ACTIONS
from stream.dead_letters import Provenance, dead_letter_headers
from stream.letters_replay import replay_letters
from stream.oracle import decode, read_sequences
from stream.partitioner import partitions_of
from tests.integration.streaming import PARTITIONS, ROOT, Deployment, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

Run = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def deployment(kafka_bootstrap: str, prefix: str, tmp_path: Path) -> Deployment:
    return Deployment(kafka_bootstrap, prefix, tmp_path)


@pytest.fixture
def cli(deployment: Deployment, tmp_path: Path) -> Run:
    """`slipstream dead-letters ARGUMENTS`; it must end with `code`."""

    def run(*arguments: str, code: int = 0, answer: str = "") -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            command(deployment, *arguments),
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            timeout=60,
            check=False,
            input=answer.encode(),
        )
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        assert done.returncode == code, done.stderr.decode()
        return done

    return run


def environment() -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SLIPSTREAM_")}
    return {**clean, "PYTHONPATH": str(ROOT), "COLUMNS": "300"}


def command(deployment: Deployment, *arguments: str) -> list[str]:
    address = ("--kafka-bootstrap", deployment.kafka.bootstrap_servers, "--prefix", deployment.names.prefix)
    return [sys.executable, "-m", "slipstream", *address, "dead-letters", *arguments]


def answered(done: subprocess.CompletedProcess[bytes]) -> Any:
    return json.loads(done.stdout)


def counts(cli: Run, *arguments: str) -> dict[str, tuple[int, int, int]]:
    """reason -> letters, replayed since, repeated."""
    found = answered(cli("list", "--json", *arguments))["counts"]
    return {count["reason"]: (count["letters"], count["replayed"], count["repeated"]) for count in found}


def bury(deployment: Deployment, reason: str, values: list[bytes | None], **of: Any) -> None:
    """Letters as ingest writes them, at known places: partition 1 unless `partition` says another."""
    partition = of.pop("partition", 1)
    where = Provenance(of.pop("topic", deployment.names.engagements), 2, 0, 1767225600000)
    for at, value in enumerate(values):
        headers = dead_letter_headers(reason, f"why {at}", where._replace(offset=at), of.get("headers", ()))
        deployment.producer.produce(
            deployment.names.dead_letters, value, of.get("key"), partition=partition, headers=headers
        )
    deployment.producer.flush()


def purchases(n: int, first: int = 0) -> list[bytes]:
    now_ms = int(time.time() * 1000)
    return [encode_engagement("u", i, "purchase", "home", now_ms - 1000 + i) for i in range(first, first + n)]


def items_of(deployment: Deployment, user: bytes = b"u") -> list[int]:
    found = read_sequences(deployment.kafka, deployment.names).sequences.get(user)
    decoded = decode(found.value) if found else (0, [])
    assert decoded is not None
    return sorted(row[1] for row in decoded[1])


def test_letters_of_an_action_that_is_added_are_replayed(deployment: Deployment, cli: Run) -> None:
    topic = deployment.names.engagements
    with deployment:
        worker = deployment.start("ingest")
        deployment.start("sequence")
        deployment.send(purchases(3), partition=2, key=b"\xffkey", headers=[("trace", b"\x00\xff"), ("trace", None)])
        deployment.send([b"never an event"], partition=0)
        deployment.drain()
        assert counts(cli) == {"unknown_action": (3, 0, 0), "not_json": (1, 0, 0)}

        # Nothing was put right yet: a dry run sends nothing, and what is sent fails again and shows it.
        ends = deployment.ends(topic)
        dry = answered(cli("replay", "--reason", "unknown_action", "--dry-run", "--json"))
        assert dry["sent"] == [{"reason": "unknown_action", "topic": topic, "letters": 3}]
        assert deployment.ends(topic) == ends
        assert counts(cli)["unknown_action"] == (3, 0, 0)
        assert answered(cli("replay", "--reason", "unknown_action", "--json"))["sent"] == dry["sent"]
        deployment.drain()
        assert counts(cli)["unknown_action"] == (6, 3, 3)

        assert worker.stop() == 0
        deployment.start("ingest", parser={"vocabulary": {"actions": [*DEFAULT_ACTIONS, "purchase"]}})
        again = answered(cli("replay", "--reason", "unknown_action", "--json"))
        assert again["sent"] == dry["sent"], "those that had failed again, and only those"
        assert again["replayed_before"] == 3
        deployment.drain()
        assert items_of(deployment) == [0, 1, 2]
        assert counts(cli)["unknown_action"] == (6, 6, 3)

        # They went as they had come, where they had come from.
        sent = [m for m in deployment.read(topic) if m.value() != b"never an event"]
        assert {(m.partition(), m.key()) for m in sent} == {(2, b"\xffkey")}
        trace = [("trace", b"\x00\xff"), ("trace", None)]
        headers = [[*trace, *([(HEADER_REPLAYS, b"%d" % n)] if n else [])] for n in (0, 1, 2)]
        assert [m.headers() for m in sent] == [of for of in headers for _ in range(3)]

        ends = deployment.ends(topic)
        assert "nothing to send" in cli("replay", "--reason", "unknown_action").stderr.decode()
        assert deployment.ends(topic) == ends
        said = cli("replay", "--reason", "unknown_action", "--again").stderr.decode()
        assert f"sent 6 unknown_action to {topic}" in said
        deployment.drain()
        assert items_of(deployment) == [0, 1, 2], "what is sent twice counts once"


def test_single_letters_and_all_of_them(deployment: Deployment, cli: Run) -> None:
    names = deployment.names
    bury(deployment, "not_json", [b"a", b"b", None])
    bury(deployment, "bad_batch", [b"c"], topic=names.batches, key=b"k")
    sent = cli("replay", "1:1", "1:1", "1:3").stderr.decode()
    assert f"sent 1 not_json to {names.engagements}" in sent
    assert [m.value() for m in deployment.read(names.engagements)] == [b"b"]
    (batch,) = deployment.read(names.batches)
    assert (batch.value(), batch.key(), batch.partition()) == (b"c", b"k", 2)
    # Places move no marks.
    report = answered(cli("replay", "--all", "--json"))
    assert {(s["reason"], s["letters"]) for s in report["sent"]} == {("not_json", 3), ("bad_batch", 1)}
    assert [m.value() for m in deployment.read(names.engagements)] == [b"b", b"a", b"b", None]
    assert answered(cli("replay", "--all", "--json"))["sent"] == []


def test_what_cannot_be_replayed_says_what_to_do_instead(deployment: Deployment, cli: Run) -> None:
    names = deployment.names
    bury(deployment, "bad_sequence", [b"x"], topic=names.sequences, key=b"u")
    bury(deployment, "not_json", [b"y"], topic="elsewhere.engagements")
    deployment.send([b"foreign"], names.dead_letters, partition=1)
    bury(deployment, "not_json", [b"fine"])
    for place, said in (("1:0", "changelog"), ("1:1", "elsewhere.engagements"), ("1:2", "not a dead letter")):
        assert said in cli("replay", "1:3", place, code=2).stderr.decode()
    assert deployment.ends(names.engagements) == [0] * PARTITIONS, "nothing is sent where one cannot be"
    report = answered(cli("replay", "--all", "--json"))
    assert sum(report["unfit"].values()) == 3
    assert [m.value() for m in deployment.read(names.engagements)] == [b"fine"]
    assert "(not a dead letter)" in cli("list").stderr.decode()
    assert "foreign" in cli("show", "1:2").stderr.decode()


def test_a_replay_killed_in_the_middle_is_done_again(deployment: Deployment, cli: Run, tmp_path: Path) -> None:
    n = 30_000
    bury(deployment, "not_json", [b"%d" % i for i in range(n)])
    topic = deployment.names.engagements
    process = subprocess.Popen(
        command(deployment, "replay", "--all"), cwd=tmp_path, env=environment(), stderr=subprocess.DEVNULL
    )
    wait_until("it sends", lambda: sum(deployment.ends(topic)) > 0)
    process.kill()
    process.wait()
    cli("replay", "--all")
    arrived = Counter(m.value() for m in deployment.read(topic))
    assert arrived.keys() == {b"%d" % i for i in range(n)}, "nothing is left out"
    assert counts(cli)["not_json"] == (n, n, 0)


def test_a_crash_between_two_chunks_sends_none_of_the_first_again(deployment: Deployment) -> None:
    bury(deployment, "not_json", [b"%d" % i for i in range(25_000)])
    seen: list[int] = []

    class CrashError(Exception):
        pass

    def crash(done: int, total: int) -> None:
        seen.append(done)
        assert total == 25_000
        if len(seen) == 2:
            raise CrashError

    with pytest.raises(CrashError):
        replay_letters(deployment.kafka, deployment.names, None, on_progress=crash)
    assert seen[-1] < 25_000
    report = replay_letters(deployment.kafka, deployment.names, None)
    assert report.passed == seen[-1]
    arrived = Counter(m.value() for m in deployment.read(deployment.names.engagements))
    assert arrived == Counter(b"%d" % i for i in range(25_000))


def test_a_letter_that_its_topic_does_not_take_stops_no_other(deployment: Deployment, cli: Run) -> None:
    names = deployment.names
    noise = np.random.default_rng(0).bytes(2 << 20)  # larger than engagement-batches takes
    bury(deployment, "bad_batch", [b"a", noise, b"b"], topic=names.batches)
    done = cli("replay", "--all", code=5)
    assert "letter 1:1 was refused" in done.stderr.decode()
    assert [m.value() for m in deployment.read(names.batches)] == [b"a", b"b"]


def test_show(deployment: Deployment, cli: Run) -> None:
    value = bytes(range(256)) * 40
    bury(deployment, "not_json", [value], key="ü\x1b[31m".encode(), headers=[("trace", b"\xff"), ("none", None)])
    bury(deployment, "null_value", [None])
    shown = cli("show", "1:0").stderr.decode()
    for part in (
        f"{deployment.names.engagements}[2]@0",
        "not_json",
        "why 0",
        "2026-01-01 00:00:00Z",
        "key      ü\\x1b[31m",
        "trace: \\xff",
        "none: (none)",
        "10,240 bytes",
    ):
        assert part in shown
    assert "\x1b" not in shown, "a letter must not drive the terminal"
    assert cli("show", "1:0", "--raw").stdout == value
    assert cli("show", "1:1", "--raw").stdout == b""
    found = answered(cli("show", "1:0", "--json"))
    assert base64.b64decode(found["value_base64"]) == value
    assert found["headers_base64"] == [["trace", base64.b64encode(b"\xff").decode()], ["none", None]]
    assert answered(cli("show", "1:1", "--json"))["value_base64"] is None
    assert not cli("show", "1:0").stdout, "what is for people goes to stderr"


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["show", "0:0"], 2, "no dead letter at 0:0: partition 0 of topic"),
        (["show", "9:0"], 2, "has partitions 0 to 3"),
        (["show", "seventeen"], 2, "PARTITION:OFFSET"),
        (["show", "0:0", "--raw", "--json"], 2, "two ways"),
        (["list", "--reason", "evil"], 2, "unknown_action"),
        (["list", "--since", "yesterday"], 2, "ISO 8601"),
        (["replay"], 2, "--all"),
        (["replay", "--all", "0:0"], 2, "say which"),
        (["replay", "0:0"], 2, "no dead letter at 0:0"),
        (["drop"], 2, "--before TIME"),
        (["drop", "--all", "--before", "1d"], 2, "say which"),
        (["drop", "--up-to", "0:0"], 2, "no dead letter at 0:0"),
    ],
)
def test_what_goes_wrong_has_its_exit_code_and_a_message(cli: Run, arguments: list[str], code: int, said: str) -> None:
    assert said in cli(*arguments, code=code).stderr.decode()


def test_missing_topics_are_named(cli: Run, deployment: Deployment) -> None:
    topic = deployment.names.dead_letters
    deployment.admin.client.delete_topics([topic])[topic].result()
    wait_until("it is gone", lambda: topic not in deployment.admin.client.list_topics(timeout=10).topics)
    for arguments in (["list"], ["show", "0:0"], ["replay", "--all"], ["drop", "--all"]):
        assert f"no topic {topic}" in cli(*arguments, code=5).stderr.decode()


def test_list_filters_by_reason_and_time_and_begins_with_the_newest(deployment: Deployment, cli: Run) -> None:
    assert "no dead letters" in cli("list").stderr.decode()
    bury(deployment, "not_json", [b"0", b"1"])
    bury(deployment, "too_old", [b"2"], partition=3)
    time.sleep(0.05)
    middle = f"{time.time():.3f}"
    time.sleep(0.05)
    bury(deployment, "not_json", [b"3"], partition=0)
    listed = answered(cli("list", "--json"))
    assert listed["letters"] == 4
    assert listed["newest"][0]["place"] == "0:0"
    buried = [letter["buried_ms"] for letter in listed["newest"]]
    assert buried == sorted(buried, reverse=True)
    assert counts(cli, "--reason", "too_old") == {"too_old": (1, 0, 0)}
    at = np.datetime64(int(float(middle) * 1000), "ms").item().isoformat() + "Z"
    assert counts(cli, "--since", at) == {"not_json": (1, 0, 0)}
    assert counts(cli, "--until", at) == {"not_json": (2, 0, 0), "too_old": (1, 0, 0)}
    assert counts(cli, "--since", "1h") == {"not_json": (3, 0, 0), "too_old": (1, 0, 0)}
    assert counts(cli, "--until", "1h") == {}
    assert len(answered(cli("list", "--json", "--limit", "2"))["newest"]) == 2


def test_drop(deployment: Deployment, cli: Run) -> None:
    bury(deployment, "not_json", [b"0", b"1", b"2"])
    bury(deployment, "too_old", [b"3"], partition=3)
    left = {"not_json": (3, 0, 0), "too_old": (1, 0, 0)}

    asked = cli("drop", "--all", answer="n\n").stderr.decode()
    assert "4 letters" in asked
    assert "3 not_json" in asked
    assert "nothing removed" in asked
    assert "--yes" in cli("drop", "--all", answer="", code=130).stderr.decode(), "nobody is there to answer"
    assert "removed 0 letters" in cli("drop", "--before", "1h").stderr.decode()
    assert counts(cli) == left

    assert "removed 2 letters: 2 not_json" in cli("drop", "--up-to", "1:1", answer="y\n").stderr.decode()
    assert counts(cli) == {"not_json": (1, 0, 0), "too_old": (1, 0, 0)}
    assert "was dropped" in cli("show", "1:1", code=2).stderr.decode()
    assert cli("show", "1:2", "--raw").stdout == b"2", "a topic without its beginning is read"
    cli("replay", "--all")
    assert counts(cli) == {"not_json": (1, 1, 0), "too_old": (1, 1, 0)}

    time.sleep(0.05)
    instant = np.datetime64(int(time.time() * 1000), "ms").item().isoformat()  # without a zone: UTC
    time.sleep(0.05)
    bury(deployment, "not_json", [b"4"])
    removed = answered(cli("drop", "--before", instant, "--yes", "--json"))
    assert removed == {"removed": {"not_json": 1, "too_old": 1}, "begins_at": {"1": 3, "3": 1}}
    assert counts(cli) == {"not_json": (1, 0, 0)}
    assert "removed 1 letters" in cli("drop", "--all", "-y").stderr.decode()
    assert "no dead letters" in cli("list").stderr.decode()
    bury(deployment, "not_json", [b"5"])
    assert counts(cli) == {"not_json": (1, 0, 0)}


def test_letters_of_both_stages_side_by_side(deployment: Deployment, cli: Run) -> None:
    """Those of the sequence stage are written in transactions: markers stand between them."""
    names = deployment.names
    records = np.ones(1, RECORD)
    good = encode_batch(Batch([b"u"], np.array([1]), np.array([0]), np.array([1], np.uint32), records))
    partition = int(partitions_of([b"u"], PARTITIONS)[0])
    producer = Producer({"bootstrap.servers": deployment.kafka.bootstrap_servers, "partitioner": "murmur2_random"})
    producer.produce(names.sequences, encode_sequence(Sequence(0, records))[:-1], b"v")
    producer.flush()
    with deployment:
        deployment.start("ingest")
        deployment.start("sequence")
        deployment.send([good[:-1]], names.batches, partition=partition)
        deployment.send([b"{"])
        deployment.drain()
        wait_until("all are there", lambda: sum(n for n, _, _ in counts(cli).values()) == 3)
        assert counts(cli) == {"bad_batch": (1, 0, 0), "bad_sequence": (1, 0, 0), "not_json": (1, 0, 0)}
        places = [letter["place"] for letter in answered(cli("list", "--json"))["newest"]]
        for place in places:
            assert answered(cli("show", place, "--json"))["place"] == place
        marker = next(p for p in places if answered(cli("show", p, "--json"))["reason"] == "bad_batch")
        behind = marker.split(":")[0] + f":{int(marker.split(':')[1]) + 1}"
        if behind not in places:
            assert "marker" in cli("show", behind, code=2).stderr.decode()
        report = answered(cli("replay", "--all", "--json"))
        assert {s["reason"] for s in report["sent"]} == {"bad_batch", "not_json"}
        deployment.drain()
        wait_until("they failed again", lambda: counts(cli)["bad_batch"] == (2, 1, 1))
        assert counts(cli)["bad_sequence"] == (1, 0, 0)
        assert answered(cli("drop", "--all", "--yes", "--json"))["removed"] == {
            "bad_batch": 2,
            "bad_sequence": 1,
            "not_json": 2,
        }


def test_a_damaged_sequence_is_whole_again_when_ingest_reads_the_raw_topic_again(deployment: Deployment) -> None:
    """What docs/operations.md says to do about `bad_sequence`."""
    names, now_ms = deployment.names, int(time.time() * 1000)
    producer = Producer({"bootstrap.servers": deployment.kafka.bootstrap_servers, "partitioner": "murmur2_random"})
    with deployment:
        ingest, sequence = deployment.start("ingest"), deployment.start("sequence")
        deployment.send([encode_engagement("u", i, "save", "home", now_ms - i) for i in range(20)])
        deployment.drain()
        assert ingest.stop() == 0
        assert sequence.stop() == 0
        producer.produce(names.sequences, b"a disk's mistake", b"u")
        producer.flush()
        deployment.start("sequence")
        wait_until("it is buried", lambda: sum(deployment.ends(names.dead_letters)) > 0)
        deployment.commit(names.ingest_group, names.engagements, dict.fromkeys(range(PARTITIONS), 0))
        deployment.start("ingest")
        deployment.drain()
        assert deployment.mismatches() == []
        assert items_of(deployment) == list(range(20))
