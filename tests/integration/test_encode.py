"""The encoder on real Kafka and Redis: what it promises, and what it makes of faults. The oracle has the last word each time."""

from __future__ import annotations

import json
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

from edge.kafka import KafkaConfig
from encoder.backfill import BackfillConfig
from encoder.store_redis import RedisStateStore, connect
from schemas.names import Names
from schemas.sequence import NO_RECORDS, Records, Sequence, encode_sequence
from schemas.state import State
from slipstream.stack import Stack, running, start_part, stop_part
from slipstream.stack.process import free_port
from tests.encoder.histories import events
from tests.encoder.models import Model, small_model
from tests.integration.encoding import Changelog, encoder, wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(240)]

USERS = [b"user-%d" % i for i in range(60)]


@pytest.fixture
def own_redis(tmp_path: Path, stack: Stack) -> Iterator[tuple[Path, str]]:
    """A Redis that a test may stop, fill up and flush: its data directory and URL."""
    with running(tmp_path / "redis", stack.kafka_bootstrap) as own:
        yield tmp_path / "redis", own.redis_url


def history(step: int, user: bytes) -> Records:
    """A user's sequence after some steps: each adds a few events, one of them late, and the table keeps 24."""
    n, i = int(user.split(b"-")[1]), 0
    times = set()
    for i in range(step + 1):
        times |= {i * 100 + n % 7, i * 100 + 50, (i - 1) * 100 + 30 + n % 5}
    return events(sorted(times)[-24:], seed=n)


def step(number: int, users: list[bytes] = USERS) -> dict[bytes, Records]:
    return {user: history(number, user) for user in users}


def stored(model: Model, changelog: Changelog, url: str, users: list[bytes] = USERS) -> dict[bytes, object]:
    store = RedisStateStore(connect(url), changelog.names, model.layout)
    return dict(zip(users, store.load(users), strict=True))


def test_sequences_become_states(model: Model, changelog: Changelog, redis_url: str, tmp_path: Path) -> None:
    refresh_log, port = tmp_path / "deep" / "refreshes.jsonl", free_port()
    changelog.write(step(0))
    with encoder(model, changelog, redis_url, tmp_path / "log", refresh_log=refresh_log, metrics_port=port) as worker:
        changelog.wait_for(model)
        assert changelog.mismatches(model, redis_url) == []
        before_ms = int(time.time() * 1000)
        for number in range(1, 12):
            changelog.write(step(number))
        changelog.write_raw([(USERS[0], encode_sequence(Sequence(0, events([1, 2, 3]))))], commit=False)  # aborted
        changelog.wait_for(model)
        assert changelog.mismatches(model, redis_url) == []
        with connect(redis_url) as client:
            assert client.get(changelog.names.active_key) == model.bundle.model_id.encode()

        lines = [json.loads(line) for line in refresh_log.read_text().splitlines()]
        assert {line["kind"] for line in lines} >= {"full", "suffix"}
        newest = {(line["partition"], line["offset"]) for line in lines}
        assert {(fence.partition, fence.offset) for _, fence in changelog.newest.values()} <= newest
        assert all(line["arrived_ms"] <= line["written_ms"] for line in lines)
        assert any(line["arrived_ms"] >= before_ms for line in lines)
        assert b"user" not in refresh_log.read_bytes()

        wait_until("the lag is reported", lambda: "slipstream_lag_messages{" in scrape(port))
        metrics = scrape(port)
        assert f'model_id="{model.bundle.model_id}",precision="fp32",provider="cpu"' in metrics
        assert 'refreshes_total{kind="full"}' in metrics
        assert "user-" not in metrics
        assert worker.terminate() == 0


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        return str(answer.read(), "utf-8")


def test_deletes_and_records_that_cannot_be_read(
    model: Model, changelog: Changelog, redis_url: str, tmp_path: Path
) -> None:
    changelog.write(step(3))
    with encoder(model, changelog, redis_url, tmp_path / "log") as worker:
        changelog.wait_for(model)
        damaged = encode_sequence(Sequence(0, history(4, USERS[5])))
        offsets = changelog.write_raw([(USERS[5], damaged[:-1] + b"\xff"), (USERS[6], b"no sequence"), (b"", damaged)])
        changelog.write({USERS[0]: NO_RECORDS})
        changelog.write_raw([(USERS[1], None)])
        changelog.newest[USERS[1]] = (NO_RECORDS, changelog.newest[USERS[1]][1])
        changelog.write({user: history(4, user) for user in USERS[10:20]})
        changelog.wait_for(model)
        assert changelog.mismatches(model, redis_url) == []
        for user, offset in zip(USERS[5:7], offsets, strict=False):
            where = f"partition {changelog.partition(user)}, offset {offset}"
            assert where in worker.log
        assert "it has no key" in worker.log
        # They come back.
        changelog.write({user: events([900, 901]) for user in USERS[:2]})
        changelog.wait_for(model)
        assert changelog.mismatches(model, redis_url) == []
        assert worker.terminate() == 0


def test_killed_in_mid_stream_again_and_again(
    model: Model, changelog: Changelog, redis_url: str, tmp_path: Path
) -> None:
    number = 0
    for _ in range(3):
        with encoder(model, changelog, redis_url, tmp_path / "log", hot_cache_bytes=1 << 20) as worker:
            worker.wait_for_log("reading partitions")
            for _ in range(8):
                changelog.write(step(number))
                number += 1
            worker.kill()  # with work in every part of the loop
    with encoder(model, changelog, redis_url, tmp_path / "log") as worker:
        changelog.write(step(number))
        changelog.wait_for(model)
        assert changelog.mismatches(model, redis_url) == []
        assert worker.terminate() == 0


def test_records_delivered_again_change_nothing(
    model: Model, changelog: Changelog, redis_url: str, tmp_path: Path
) -> None:
    for number in range(4):
        changelog.write(step(number))
    with encoder(model, changelog, redis_url, tmp_path / "log") as worker:
        changelog.wait_for(model)
        assert worker.terminate() == 0
    assert changelog.lag(model) == 0, "what was done is committed on the way out"
    before = stored(model, changelog, redis_url)
    group = changelog.names.encoder_group(model.bundle.model_id)
    beginning = [TopicPartition(changelog.names.sequences, p, 0) for p in range(changelog.partitions)]
    changelog.admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, beginning)])[group].result()
    assert changelog.lag(model) > 0
    with encoder(model, changelog, redis_url, tmp_path / "log") as worker:
        changelog.wait_for(model)
        assert worker.terminate() == 0
    after = stored(model, changelog, redis_url)
    for user in USERS:
        first, second = before[user], after[user]
        assert isinstance(first, State)
        assert isinstance(second, State)
        assert first.header.revision == second.header.revision


def test_two_workers_share_and_take_over(model: Model, changelog: Changelog, redis_url: str, tmp_path: Path) -> None:
    changelog.write(step(0))
    with encoder(model, changelog, redis_url, tmp_path / "a") as a:
        a.wait_for_log("reading partitions [0, 1, 2, 3]")
        with encoder(model, changelog, redis_url, tmp_path / "b") as b:
            b.wait_for_log("reading partitions")
            for number in range(1, 10):
                changelog.write(step(number))
            changelog.wait_for(model)
            assert changelog.mismatches(model, redis_url) == []
            for number in range(10, 14):
                changelog.write(step(number))
            assert b.terminate() == 0
            for number in range(14, 18):
                changelog.write(step(number))
            changelog.wait_for(model)
            assert changelog.mismatches(model, redis_url) == []
        assert a.terminate() == 0


def test_a_zombie_changes_nothing(model: Model, changelog: Changelog, redis_url: str, tmp_path: Path) -> None:
    """Stopped past its session with work in its hands; another worker takes over; then it goes on."""
    with encoder(model, changelog, redis_url, tmp_path / "a") as zombie:
        zombie.wait_for_log("reading partitions")
        changelog.write(step(0))
        changelog.wait_for(model)
        for number in range(1, 5):
            changelog.write(step(number))
            time.sleep(0.005)
        zombie.process.send_signal(signal.SIGSTOP)
        with encoder(model, changelog, redis_url, tmp_path / "b") as heir:
            heir.wait_for_log("reading partitions")
            changelog.write(step(5))
            changelog.wait_for(model)
            before = {user: state.header for user, state in stored(model, changelog, redis_url).items()}  # type: ignore[attr-defined]
            zombie.process.send_signal(signal.SIGCONT)
            zombie.wait_for_log("another worker's")
            wait_until("it takes part again", lambda: zombie.log.count("reading partitions") > 1)
            assert changelog.mismatches(model, redis_url) == []
            after = {user: state.header for user, state in stored(model, changelog, redis_url).items()}  # type: ignore[attr-defined]
            assert {u: h.revision for u, h in before.items()} == {u: h.revision for u, h in after.items()}
            changelog.write(step(6))
            changelog.wait_for(model)
            assert changelog.mismatches(model, redis_url) == []
            assert heir.terminate() == 0
        assert zombie.terminate() == 0


def test_damaged_values_are_healed_by_the_next_event(
    model: Model, changelog: Changelog, redis_url: str, redis_client: redis.Redis, tmp_path: Path
) -> None:
    names, model_id = changelog.names, model.bundle.model_id
    changelog.write(step(2))
    with encoder(model, changelog, redis_url, tmp_path / "log", recheck_every=1) as worker:
        changelog.wait_for(model)
        for i, user in enumerate(USERS):
            key = names.state_key(model_id, user)
            match i % 4:
                case 0:
                    redis_client.setrange(key, 16 + i, b"\xff")
                case 1:
                    redis_client.setrange(key, 300 + i, b"\x55\xaa\x55")
                case 2:
                    redis_client.set(key, b"junk")
                case 3:
                    redis_client.delete(key)
                    redis_client.lpush(key, "junk")
        assert len(changelog.mismatches(model, redis_url)) > len(USERS) // 2
        # One after the other: folded together they would be one write, and a hot state is read after each.
        for n in (3, 4):
            changelog.write(step(n))
            changelog.wait_for(model)
        assert changelog.mismatches(model, redis_url) == []
        assert "it is made anew" in worker.log
        assert worker.terminate() == 0


def test_redis_flushed_then_killed_then_full(
    model: Model, changelog: Changelog, own_redis: tuple[Path, str], tmp_path: Path
) -> None:
    data_dir, url = own_redis
    changelog.write(step(0))
    with encoder(model, changelog, url, tmp_path / "log") as worker, connect(url) as client:
        changelog.wait_for(model)
        # Everything is lost, the script too: all users have a state again, those without an event too.
        client.flushall()
        client.script_flush()
        changelog.write(step(1, USERS[:30]))
        wait_until("all states are there again", lambda: changelog.mismatches(model, url) == [])
        assert "Redis lost states of partition" in worker.log

        # It goes away and comes back empty: the worker waits, and commits nothing meanwhile.
        stop_part(data_dir, "redis")
        changelog.write(step(3))
        worker.wait_for_log("users wait, next try")
        assert changelog.lag(model) > 0
        start_part(data_dir, "redis")
        wait_until("all states are there again", lambda: changelog.mismatches(model, url) == [])
        changelog.wait_for(model)

        # It has no memory left: likewise.
        client.config_set("maxmemory", "1mb")
        changelog.write(step(5))
        worker.wait_for_log("raise its maxmemory")
        assert changelog.lag(model) > 0
        client.config_set("maxmemory", "0")
        changelog.wait_for(model)
        assert changelog.mismatches(model, url) == []
        assert worker.terminate() == 0


@pytest.mark.parametrize("way", ["in its order", "as a backfill"])
def test_a_redis_that_lost_its_newest_writes_gets_those_again(
    model: Model, changelog: Changelog, own_redis: tuple[Path, str], tmp_path: Path, way: str
) -> None:
    """While a worker runs, and while none does. A second Redis is the copy that was behind."""
    _, url = own_redis
    options = {"backfill": BackfillConfig(from_records=10)} if way == "as a backfill" else {}
    changelog.write(step(0))
    with connect(url) as client:

        def copy() -> dict[bytes, Any]:
            return {key: client.get(key) for key in client.scan_iter()}

        def fall_back_to(values: dict[bytes, Any]) -> None:
            with client.pipeline() as everything_at_once:
                everything_at_once.flushall()
                for key, value in values.items():
                    everything_at_once.set(key, value)
                everything_at_once.execute()

        with encoder(model, changelog, url, tmp_path / "log", **options) as worker:
            changelog.wait_for(model)
            older = copy()
            changelog.write(step(1, USERS[:30]))
            changelog.wait_for(model)
            fall_back_to(older)
            wait_until("the newest states are there again", lambda: changelog.mismatches(model, url) == [])
            changelog.wait_for(model)
            assert worker.log.count("Redis lost states of partition") == changelog.partitions
            assert "from offset 0 on" not in worker.log
            changelog.write(step(2, USERS[:30]))
            changelog.wait_for(model)
            assert worker.terminate() == 0
        fall_back_to(older)
        assert changelog.mismatches(model, url) != []
        with encoder(model, changelog, url, tmp_path / "log", **options):
            wait_until("and again, without an event", lambda: changelog.mismatches(model, url) == [])


def test_a_worker_told_to_stop_while_redis_is_away_commits_nothing(
    model: Model, changelog: Changelog, own_redis: tuple[Path, str], tmp_path: Path
) -> None:
    data_dir, url = own_redis
    with encoder(model, changelog, url, tmp_path / "log") as worker:
        worker.wait_for_log("reading partitions")
        stop_part(data_dir, "redis")
        changelog.write(step(0))
        worker.wait_for_log("users wait, next try")
        assert worker.terminate() == 0
    start_part(data_dir, "redis")
    with encoder(model, changelog, url, tmp_path / "log", redis_patience_s=0) as worker:
        changelog.wait_for(model)
        assert changelog.mismatches(model, url) == []
        stop_part(data_dir, "redis")
        changelog.write(step(1))
        assert worker.process.wait(60) == 6, worker.log
        assert "is it running?" in worker.log


def test_kafka_away_for_a_while(model: Model, prefix: str, tmp_path: Path) -> None:
    with running(tmp_path / "stack") as own:
        changelog = Changelog(own.kafka_bootstrap, Names(prefix))
        with encoder(model, changelog, own.redis_url, tmp_path / "log") as worker:
            changelog.write(step(0))
            changelog.wait_for(model)
            changelog.write(step(1))
            stop_part(tmp_path / "stack", "kafka")
            worker.wait_for_log("trying on")
            start_part(tmp_path / "stack", "kafka")
            changelog.write(step(2))
            changelog.wait_for(model)
            assert changelog.mismatches(model, own.redis_url) == []
            # It ends in good order also without Kafka: what it could not commit comes again.
            changelog.write(step(3))
            stop_part(tmp_path / "stack", "kafka")
            assert worker.terminate() == 0
            assert len(worker.log.splitlines()) < 30, "it does not fill the disk meanwhile"


def test_a_topic_made_anew(model: Model, changelog: Changelog, redis_url: str, tmp_path: Path) -> None:
    """Its offsets begin again, far below the fences of the states."""
    for number in range(3):
        changelog.write(step(number))
    # Or it takes half a minute.
    impatient = KafkaConfig(changelog.bootstrap, {"topic.metadata.propagation.max.ms": "1000"})
    with encoder(model, changelog, redis_url, tmp_path / "log", kafka=impatient) as worker:
        changelog.wait_for(model)
        former = changelog.topic_id
        changelog.delete()
        assert worker.process.wait(60) == 5, worker.log
    changelog.create()
    assert changelog.topic_id != former
    changelog.write(step(4))
    with encoder(model, changelog, redis_url, tmp_path / "log") as worker:
        changelog.wait_for(model)
        assert changelog.mismatches(model, redis_url) == []
        assert worker.terminate() == 0


def test_two_models_side_by_side(model: Model, changelog: Changelog, redis_url: str, tmp_path: Path) -> None:
    other = small_model(tmp_path / "other", seed=1)
    changelog.write(step(1))
    with encoder(model, changelog, redis_url, tmp_path / "a") as first:
        changelog.wait_for(model)
        with encoder(other, changelog, redis_url, tmp_path / "b") as second:
            changelog.write(step(2))
            changelog.wait_for(model)
            changelog.wait_for(other)
            assert changelog.mismatches(model, redis_url) == []
            assert changelog.mismatches(other, redis_url) == []
            assert f"rankers read model {model.bundle.model_id}" in second.log
            assert second.terminate() == 0
        assert first.terminate() == 0


def test_what_is_missing_is_named(model: Model, changelog: Changelog, redis_url: str, tmp_path: Path) -> None:
    absent = Changelog.__new__(Changelog)
    absent.bootstrap, absent.names = changelog.bootstrap, Names("absent-" + changelog.names.prefix)
    with encoder(model, absent, redis_url, tmp_path / "topic") as worker:
        assert worker.process.wait(30) == 5
        assert "slipstream topics create" in worker.log
    port = free_port()
    with encoder(model, changelog, f"redis://:secret@127.0.0.1:{port}/0", tmp_path / "redis") as worker:
        assert worker.process.wait(30) == 6
        assert f"Redis at 127.0.0.1:{port}" in worker.log
        assert "secret" not in worker.log
    absent.bootstrap = f"127.0.0.1:{port}"
    with encoder(model, absent, redis_url, tmp_path / "kafka") as worker:
        assert worker.process.wait(60) == 6
        assert f"127.0.0.1:{port}" in worker.log
