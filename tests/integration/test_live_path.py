"""The commands on a live deployment: stages as processes, a replay, and what people ask afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis
from confluent_kafka import Producer

from edge.kafka import KafkaConfig
from schemas.event import encode_engagement
from schemas.names import Names
from slipstream.pipeline import Pipeline
from slipstream.processes import Stages
from slipstream.stack import Stack
from tests.bundles import random_bundle
from tests.integration.encoding import wait_until
from tests.integration.otlp import Collector, collector

pytestmark = [pytest.mark.integration]

EVENTS = 1500


class Deployment:
    """Three stages that have worked off a replay."""

    def __init__(self, pipeline: Pipeline, directory: Path) -> None:
        self.pipeline, self.directory = pipeline, directory
        self.stages: Stages | None = None
        self.collector: Collector | None = None

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "slipstream", *arguments],
            cwd=self.directory,
            env={**os.environ, **self.pipeline.environment(self.directory / "model")},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def json(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        done = self.run(*arguments, "--json")
        assert done.returncode == code, done.stderr
        return json.loads(done.stdout)

    def send(self, value: bytes, user: str, **headers: str) -> None:
        producer = Producer(
            {"bootstrap.servers": self.pipeline.kafka.bootstrap_servers, "partitioner": "murmur2_random"}
        )
        producer.produce(self.pipeline.names.engagements, value, user, headers=dict(headers))
        assert producer.flush(30) == 0

    def wait_until_quiet(self) -> None:
        deadline = time.monotonic() + 90
        while not self.pipeline.is_quiet():
            assert self.stages is not None
            self.stages.check()
            assert time.monotonic() < deadline, self.pipeline.lag()
            time.sleep(0.2)


@pytest.fixture(scope="module")
def deployment(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    directory = tmp_path_factory.mktemp("live")
    bundle = random_bundle(directory / "model", items=1682)
    names = Names(f"live-{directory.name}")
    pipeline = Pipeline(KafkaConfig(stack.kafka_bootstrap), stack.redis_url, names, bundle.model_id)
    deployment = Deployment(pipeline, directory)
    assert deployment.run("topics", "create").returncode == 0
    with collector() as deployment.collector:
        telemetry = {
            "SLIPSTREAM_LOG_FORMAT": "json",
            "SLIPSTREAM_LOG_LEVEL": "debug",
            "SLIPSTREAM_TRACES_ENDPOINT": deployment.collector.endpoint,
            "SLIPSTREAM_TRACE_RATIO": "0",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        }
        environment = {**pipeline.environment(directory / "model"), **telemetry}
        yield from replayed(deployment, environment)


def replayed(deployment: Deployment, environment: dict[str, str]) -> Iterator[Deployment]:
    pipeline = deployment.pipeline
    with Stages([], deployment.directory / "logs", environment) as stages:
        for stage in ("ingest", "sequence", "encode"):
            stages.start(stage, stage)
        share = str(EVENTS / 100_000)
        sent = deployment.json("replay", "ml-100k", "--end", share, "--duplicates", "0.02", "--malformed", "0.01")
        assert sent["events_sent"] == EVENTS
        deployment.stages = stages
        deployment.wait_until_quiet()
        assert pipeline.dead_letters() == sent["malformed_sent"] > 0
        yield deployment


def test_topics_are_kept_and_refused_with_another_number(deployment: Deployment) -> None:
    assert deployment.json("topics", "create")["created"] == []
    done = deployment.run("topics", "create", "--partitions", "7")
    assert (done.returncode, "7" in done.stderr) == (5, True)


def test_verify_finds_nothing_wrong_and_then_what_is(deployment: Deployment) -> None:
    report = deployment.json("verify")
    assert report["sequences_checked"] == report["states_checked"] == report["users"] > 10
    assert report["sequences_mismatched"] == report["states_mismatched"] == 0

    # One user's state in the place of another's: valid in itself, and wrong.
    pipeline = deployment.pipeline
    client = redis.Redis.from_url(pipeline.redis_url)
    keys = sorted(client.scan_iter(match=pipeline.names.state_key_pattern(pipeline.model_id)))
    former = client.get(keys[0])
    client.set(keys[0], client.get(keys[1]) or b"")
    try:
        done = deployment.run("verify", "--json")
        assert done.returncode == 9
        assert json.loads(done.stdout)["states_mismatched"] == 1
        assert keys[0].rsplit(b":", 1)[1].decode() in done.stderr
        repaired = deployment.json("verify", "--repair")
        assert (repaired["states_repaired"], repaired["states_mismatched"], repaired["mismatches"]) == (1, 0, [])
        assert deployment.json("verify")["states_mismatched"] == 0
    except BaseException:
        client.set(keys[0], former or b"")
        raise
    assert deployment.json("verify", "--sample", "5")["states_checked"] == 5


def test_state_show_lists_the_newest_events(deployment: Deployment) -> None:
    pipeline = deployment.pipeline
    client = redis.Redis.from_url(pipeline.redis_url)
    key = next(iter(client.scan_iter(match=pipeline.names.state_key_pattern(pipeline.model_id))))
    user = key.rsplit(b":", 1)[1].decode()
    shown = deployment.json("state", "show", user, "--events", "3")
    assert shown["status"] == "present"
    assert shown["events"][-1]["timestamp_ms"] == shown["newest_event_ms"]
    assert shown["length"] >= len(shown["events"])
    assert user in deployment.run("state", "show", user).stderr


def test_a_user_without_a_state_has_its_exit_code(deployment: Deployment) -> None:
    assert deployment.json("state", "show", "nobody", code=10)["status"] == "not_found"


def test_rank_crosses_what_it_retrieves_or_what_it_is_given(deployment: Deployment) -> None:
    client = redis.Redis.from_url(deployment.pipeline.redis_url)
    key = next(iter(client.scan_iter(match=deployment.pipeline.names.state_key_pattern(deployment.pipeline.model_id))))
    user = key.rsplit(b":", 1)[1].decode()
    ranked = deployment.json("rank", user, "-k", "7")
    scores = [item["score"] for item in ranked["items"]]
    assert (ranked["status"], len(scores)) == ("present", 7)
    assert scores == sorted(scores, reverse=True)
    seen = {event["item_id"] for event in deployment.json("state", "show", user, "--events", "256")["events"]}
    assert not seen & {item["item_id"] for item in ranked["items"]}
    given = deployment.json("rank", user, "--item", "5", "--item", "9")
    assert {item["item_id"] for item in given["items"]} == {5, 9}
    assert deployment.json("rank", "nobody")["retrieval"] == "popularity"


def test_simulate_runs_the_same_log_without_kafka(deployment: Deployment, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    rows = "".join(f"u{i % 7},{i % 50},{1_700_000_000_000 + i}\n" for i in range(300))
    log.write_text("user_id,item_id,timestamp_ms\n" + rows)
    report = deployment.json("simulate", str(log), "--action", "=view", "--surface", "=home", "--batch-events", "20")
    assert (report["events"], report["users"], report["states"], report["dead_letters"]) == (300, 7, 7, 0)


def test_a_forgotten_user_is_gone_from_the_changelog_and_from_redis(deployment: Deployment) -> None:
    pipeline = deployment.pipeline
    client = redis.Redis.from_url(pipeline.redis_url)
    key = next(iter(client.scan_iter(match=pipeline.names.state_key_pattern(pipeline.model_id))))
    user = key.rsplit(b":", 1)[1].decode()
    (newest,) = deployment.json("state", "show", user, "--events", "1")["events"]
    vocabulary = (newest["action"], newest["surface"])
    assert deployment.json("forget", user, "--wait")["gone"]
    assert deployment.json("state", "show", user, code=10)["status"] == "not_found"

    # A late duplicate of an old event changes nothing; a new event begins a new history.
    deployment.send(encode_engagement(user, newest["item_id"], *vocabulary, newest["timestamp_ms"]), user)
    deployment.wait_until_quiet()
    assert deployment.json("state", "show", user, code=10)["status"] == "not_found"
    now_ms = int(time.time() * 1000)
    deployment.send(encode_engagement(user, 7, *vocabulary, now_ms), user)
    deployment.wait_until_quiet()
    (event,) = deployment.json("state", "show", user)["events"]
    assert (event["item_id"], event["timestamp_ms"]) == (7, now_ms)
    assert deployment.json("verify")["sequences_mismatched"] == 0


def test_forgetting_says_when_nobody_carries_it_out(stack: Stack, deployment: Deployment, prefix: str) -> None:
    names = Names(prefix)
    idle = Deployment(
        Pipeline(KafkaConfig(stack.kafka_bootstrap), stack.redis_url, names, "0" * 16), deployment.directory
    )
    assert idle.run("topics", "create").returncode == 0
    done = idle.run("forget", "u-1", "--wait", "--timeout", "1")
    assert (done.returncode, "do ingest and sequence workers run" in done.stderr) == (6, True)
    assert idle.run("forget", "x" * 300).returncode == 2


def test_a_sequence_keeps_as_many_events_as_the_settings_say(deployment: Deployment, prefix: str) -> None:
    pipeline = replace(deployment.pipeline, names=Names(prefix))
    small = Deployment(pipeline, deployment.directory)
    environment = {**pipeline.environment(deployment.directory / "model"), "SLIPSTREAM_SEQUENCE_CAPACITY": "5"}
    assert small.run("topics", "create").returncode == 0
    with Stages([], deployment.directory / "small-logs", environment) as stages:
        small.stages = stages
        for stage in ("ingest", "sequence", "encode"):
            stages.start(stage, stage)
        small.json("replay", "ml-100k", "--end", "0.005")
        small.wait_until_quiet()
        done = subprocess.run(
            [sys.executable, "-m", "slipstream", "verify", "--json"],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert small.run("verify").returncode == 9, "with the default capacity they would be longer"


def test_a_producers_trace_goes_through_all_stages(deployment: Deployment) -> None:
    assert deployment.collector is not None
    found, names = deployment.collector, deployment.pipeline.names
    assert found.spans() == [], "the replay has no traces, and none are drawn"
    trace, producer = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    event = encode_engagement("marked-user-4711", 987_654_321_987, "save", "home", int(time.time() * 1000))
    deployment.send(event, "marked-user-4711", traceparent=f"00-{trace}-{producer}-01")
    # By itself, so that no poll has another message in it.
    wait_until("all spans of the event are there", lambda: len(found.of(trace)) >= 9)
    deployment.send(event, "marked-user-4711", traceparent=f"00-{trace[::-1]}-{producer}-00")
    deployment.send(b"{", "marked-user-4711", traceparent=f"00-{'1' * 32}-{producer}-01")
    wait_until("the dead letter's spans are there", lambda: bool(found.of("1" * 32)))
    deployment.wait_until_quiet()

    spans = {(span.service.removeprefix("slipstream-"), span.name.split()[0]): span for span in found.of(trace)}
    assert len(found.of(trace)) == len(spans) == 9
    topics = {"ingest": names.engagements, "sequence": names.batches, "encode": names.sequences}
    groups = {
        "ingest": names.ingest_group,
        "sequence": names.sequence_app,
        "encode": names.encoder_group(deployment.pipeline.model_id),
    }
    before = producer
    for stage, topic in topics.items():
        poll, process = spans[stage, "poll"], spans[stage, "process"]
        assert (poll.name, poll.kind, poll.parent_id, poll.links) == (f"poll {topic}", "client", before, (before,))
        assert (process.name, process.kind, process.parent_id) == (f"process {topic}", "consumer", before)
        assert poll.attributes.items() >= {"messaging.batch.message_count": 1, "slipstream.traces.dropped": 0}.items()
        assert (
            process.attributes.items()
            >= {
                "messaging.system": "kafka",
                "messaging.operation.type": "process",
                "messaging.operation.name": "process",
                "messaging.destination.name": topic,
                "messaging.consumer.group.name": groups[stage],
            }.items()
        )
        assert process.attributes["messaging.kafka.offset"] >= 0
        assert 0 <= int(process.attributes["messaging.destination.partition.id"]) < 4
        assert not process.failed
        if stage != "encode":
            send = spans[stage, "send"]
            assert (send.kind, send.parent_id) == ("producer", process.span_id)
            assert process.start_ns <= send.start_ns <= send.end_ns <= process.end_ns
            before = send.span_id
    write = spans["encode", "EVALSHA"]
    assert (write.kind, write.parent_id) == ("client", spans["encode", "process"].span_id)
    assert write.attributes["db.system.name"] == "redis"
    # What ingest sent is what sequence worked on.
    sent, taken = spans["ingest", "send"].attributes, spans["sequence", "process"].attributes
    for name in ("messaging.kafka.offset", "messaging.destination.partition.id"):
        assert sent[name] == taken[name]
    assert spans["encode", "process"].attributes["slipstream.refresh.kind"] in ("full", "append")

    assert found.of(trace[::-1]) == [], "its producer does not sample it"
    (letter,) = [span for span in found.of("1" * 32) if span.name.startswith("process")]
    assert (letter.failed, letter.attributes["error.type"]) == (True, "not_json")


def test_stages_log_json_lines_without_user_data(deployment: Deployment) -> None:
    """Also where something is wrong with what is the user's own: a message, and the state in Redis."""
    pipeline, user, item = deployment.pipeline, "marked-user-4711", 987_654_321_987
    now_ms = int(time.time() * 1000)
    deployment.send(encode_engagement(user, item, "save", "home", now_ms), user)
    deployment.send(f'{{"user_id": "{user}", "item_id": {item}'.encode(), user)
    deployment.wait_until_quiet()
    redis.Redis.from_url(pipeline.redis_url).set(pipeline.names.state_key(pipeline.model_id, user.encode()), user)
    deployment.send(encode_engagement(user, item + 1, "save", "home", now_ms + 1), user)
    deployment.wait_until_quiet()
    assert deployment.json("state", "show", user)["length"] >= 2
    assert deployment.stages is not None
    assert deployment.collector is not None
    for stage in ("ingest", "sequence", "encode"):
        text = deployment.stages.log_file(stage).read_text()
        lines = [json.loads(line) for line in text.splitlines()]
        assert {line["stage"] for line in lines} == {stage}
        assert all({"time", "level", "logger", "message", "worker"} <= line.keys() for line in lines)
        assert user not in text
        assert str(item) not in text
    assert all(user.encode() not in body and str(item).encode() not in body for body in deployment.collector.bodies)
    (anew,) = [line for line in lines if "it is made anew" in line["message"]]
    assert anew["offset"] >= 0
