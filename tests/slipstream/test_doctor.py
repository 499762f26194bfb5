"""What the doctor thinks of facts, and that no check hides another. Run: pytest tests/slipstream/test_doctor.py"""

from __future__ import annotations

import errno
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from encoder.providers import import_onnxruntime
from encoder.runtime import RuntimeConfig
from schemas.errors import ProviderError, UnavailableError
from schemas.names import Names
from slipstream.doctor import judge_kafka, judge_redis
from slipstream.doctor.clock import ClockFacts, judge_clock
from slipstream.doctor.disk import DiskFacts, judge_disk, look
from slipstream.doctor.examine import Probe, examine
from slipstream.doctor.finding import Finding, Level
from slipstream.doctor.runtime import (
    PRODUCT,
    RuntimeFacts,
    driver_version,
    gather,
    judge_installed,
    judge_provider,
    judge_threads,
)
from stream.topics import plan_topics

NAMES = Names("shop")
MISSING = "a library is missing"


def test_what_hangs_and_what_breaks_hides_nothing() -> None:
    never = threading.Event()

    def hangs() -> Iterator[Finding]:
        yield Finding("first", Level.OK, "")
        never.wait()
        yield Finding("second", Level.OK, "")

    def breaks() -> Iterator[Finding]:
        raise RuntimeError("login by hunter2 failed")
        yield

    probes = [Probe(("first", "second", "third"), hangs), Probe(("broken",), breaks), Probe(("fine",), _fine)]
    findings, unfinished = examine(probes, 0.2, {"sasl.password": "hunter2"})
    never.set()
    assert [(f.check, f.level) for f in findings] == [
        ("first", Level.OK),
        ("second", Level.FAIL),
        ("third", Level.SKIPPED),
        ("broken", Level.FAIL),
        ("fine", Level.OK),
    ]
    assert unfinished
    assert "RuntimeError" in findings[3].found
    assert "hunter2" not in repr(findings)


def _fine() -> Iterator[Finding]:
    yield Finding("fine", Level.OK, "")


@pytest.mark.parametrize(
    ("facts", "level", "said"),
    [
        (ClockFacts(3, 1), Level.OK, "3 ms ahead"),
        (ClockFacts(-700, 1), Level.WARN, "700 ms behind"),
        (ClockFacts(600, 200), Level.OK, "within 200 ms"),
        (ClockFacts(90_000, 5), Level.FAIL, "90,000 ms ahead"),
        (ClockFacts(-90_000, 250, at_least=True), Level.OK, "from the future"),
        (ClockFacts(90_000, 250, at_least=True), Level.FAIL, "at least 90,000 ms ahead"),
        (None, Level.OK, "yet"),
    ],
)
def test_clocks(facts: ClockFacts | None, level: Level, said: str) -> None:
    found = judge_clock("kafka clock", "Kafka", facts)
    assert (found.level, said in found.found) == (level, True), found
    assert ("NTP" in found.advice) == (level in (Level.WARN, Level.FAIL))


@pytest.mark.parametrize(
    ("facts", "level", "said"),
    [
        (DiskFacts(Path("/var/x"), "", False, 50 << 30), Level.OK, "53.7 GB free"),
        (DiskFacts(Path("/var/x"), "", False, 500 << 20), Level.WARN, "0.5 GB free"),
        (DiskFacts(Path("/var/x"), "", False, 1 << 20), Level.FAIL, "full"),
        (DiskFacts(Path("/var/x"), "No space left on device", True, 0), Level.FAIL, "full"),
        (DiskFacts(Path("/var/x"), "Permission denied", False, 50 << 30), Level.FAIL, "Permission denied"),
    ],
)
def test_disks(facts: DiskFacts, level: Level, said: str) -> None:
    found = judge_disk("data_dir", Path("/var/x"), facts)
    assert (found.level, said in found.found) == (level, True), found
    assert ("`data_dir`" in found.advice) == (level is Level.FAIL)


def test_a_directory_is_looked_at_where_it_will_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = look(tmp_path / "a" / "b")
    assert (facts.path, facts.error, list(tmp_path.iterdir())) == (tmp_path, "", [])
    assert "directory" in look(Path("/dev/null")).error.lower()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    assert look(tmp_path).full


def facts(runs_on: str | ProviderError, here: tuple[str, ...] = ("cpu",), **packages: str) -> RuntimeFacts:
    rungs = {rung: "" if rung in here else MISSING for rung in ("tensorrt", "cuda", "cpu")}
    wheels = {name.replace("_", "-"): version for name, version in packages.items()} or {"onnxruntime": "1.31.1"}
    return RuntimeFacts(wheels, rungs, runs_on, "", 2)


@pytest.mark.parametrize(
    ("found", "asked", "level", "said"),
    [
        (facts("cpu"), RuntimeConfig(), Level.OK, "cpu in fp32, by `providers` cpu; no tensorrt: a library is missing"),
        (facts("cuda", ("cuda", "cpu")), RuntimeConfig(("cuda", "cpu")), Level.OK, "cuda in fp16"),
        (facts("cpu"), RuntimeConfig(("cuda", "cpu")), Level.WARN, "only cpu"),
        (facts("cpu", ("cuda", "cpu")), RuntimeConfig(), Level.WARN, "cpu in fp32"),
        (facts(ProviderError("cuda is required")), RuntimeConfig(("cuda", "cpu"), "cuda"), Level.FAIL, "required"),
    ],
)
def test_providers(found: RuntimeFacts, asked: RuntimeConfig, level: Level, said: str) -> None:
    judged = judge_provider(found, asked)
    assert (judged.level, said in judged.found) == (level, True), judged
    assert bool(judged.advice) == (level is not Level.OK)


def test_two_onnxruntimes_exclude_each_other() -> None:
    both = judge_installed(facts("cpu", onnxruntime="1.31.1", onnxruntime_gpu="1.31.1"))
    assert (both.level, "pip uninstall" in both.advice) == (Level.FAIL, True)
    assert judge_installed(facts("cpu")).level is Level.OK
    gpu = judge_installed(facts("cuda", onnxruntime_gpu="1.31.1", nvidia_cublas="13.1"))
    assert (gpu.level, "nvidia-cublas 13.1" in gpu.found) == (Level.OK, True)


def test_more_threads_than_cores() -> None:
    assert [judge_threads(facts("cpu"), threads).level for threads in (2, 3)] == [Level.OK, Level.WARN]


def test_what_runs_here_is_found() -> None:
    found = gather(RuntimeConfig())
    assert (found.runs_on, found.rungs["cpu"]) == ("cpu", "")
    assert "built without it" in found.rungs["cuda"]
    missing = gather(RuntimeConfig(("cuda",)))
    assert isinstance(missing.runs_on, ProviderError)
    product = import_onnxruntime().InferenceSession(PRODUCT, providers=["CPUExecutionProvider"])
    assert product.run(None, {"x": 2 * np.eye(2, dtype=np.float32)})[0].tolist() == [[4, 0], [0, 4]]


def test_without_onnxruntime_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = gather(RuntimeConfig())
    for judged in (judge_installed(found), judge_provider(found, RuntimeConfig())):
        assert (judged.level, "slipstream-embeddings[cpu]" in judged.found) == (Level.FAIL, True)


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.54.03  Tue Jun  6 22:20:39 UTC 2023\nGCC", "535.54.03"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.159.04  Release Build  (dvs)", "580.159.04"),
        ("something else", "unknown"),
    ],
)
def test_the_driver(said: str, version: str) -> None:
    assert driver_version(said) == version


REFUSED = "connection refused"


@pytest.mark.parametrize(
    ("facts", "level", "said"),
    [
        (judge_kafka.ReachFacts("SSL", {"a:1": ""}, None, {"a:1": ""}), Level.OK, "SSL"),
        (judge_kafka.ReachFacts("SSL", {"a:1": REFUSED}, None, {}), Level.FAIL, "a:1: connection refused"),
        (judge_kafka.ReachFacts("SSL", {"a:1": REFUSED, "b:1": ""}, None, {"b:1": ""}), Level.WARN, "a:1"),
        (judge_kafka.ReachFacts("SSL", {"a:1": ""}, None, {"kafka:9": "this name"}), Level.FAIL, "kafka:9"),
        (judge_kafka.ReachFacts("SSL", {"a:1": ""}, UnavailableError("no answer"), {}), Level.FAIL, "no answer"),
    ],
)
def test_reaching_kafka(facts: judge_kafka.ReachFacts, level: Level, said: str) -> None:
    found = judge_kafka.judge_reach(facts)
    assert (found.level, said in found.found) == (level, True), found
    assert bool(found.advice) == (level is not Level.OK)


def test_a_missing_topic_and_where_it_may_be() -> None:
    found = judge_kafka.judge_topics(NAMES, {NAMES.engagements: 4}, ["shop2"])
    assert (found.level, NAMES.sequences in found.found) == (Level.FAIL, True)
    assert "slipstream topics create" in found.advice
    assert "shop2" in found.advice


def test_topics_as_they_are_made_are_right() -> None:
    assert judge_kafka.judge_settings(NAMES, configs()).level is Level.OK


@pytest.mark.parametrize(
    ("topic", "changed", "level", "said"),
    [
        (NAMES.sequences, {"cleanup.policy": "delete"}, Level.FAIL, "loses sequences"),
        (NAMES.sequences, {"cleanup.policy": "compact,delete"}, Level.FAIL, "compact,delete"),
        (NAMES.engagements, {"cleanup.policy": "compact"}, Level.FAIL, "loses events"),
        (NAMES.engagements, {"message.timestamp.type": "CreateTime"}, Level.WARN, "freshness"),
        (NAMES.batches, {"retention.ms": "3600000"}, Level.WARN, "less than a day"),
        (NAMES.batches, {"retention.ms": "-1"}, Level.OK, "batches for ever"),
        (NAMES.dead_letters, {"max.message.bytes": "1000"}, Level.WARN, "max.message.bytes"),
        (NAMES.sequences, None, Level.WARN, "DescribeConfigs"),
    ],
)
def test_settings_of_topics(topic: str, changed: Mapping[str, str] | None, level: Level, said: str) -> None:
    given = configs()
    given[topic] = None if changed is None else {**(given[topic] or {}), **changed}
    found = judge_kafka.judge_settings(NAMES, given)
    assert (found.level, said in found.found) == (level, True), found


def configs() -> dict[str, Mapping[str, str] | None]:
    """Settings as a broker answers: its own where `topics create` sets none."""
    own = {"retention.ms": "604800000", "message.timestamp.type": "CreateTime"}
    return {plan.name: {**own, **plan.config} for plan in plan_topics(NAMES, 1)}


def info(**changed: object) -> judge_redis.Info:
    healthy = {"redis_version": "7.2.4", "role": "master", "loading": 0, "used_memory": 10 << 20, "maxmemory": 0}
    kept = {"maxmemory_policy": "noeviction", "total_system_memory": 1 << 30, "aof_enabled": 0, "save": ""}
    return {**healthy, **kept, **changed}


@pytest.mark.parametrize(
    ("changed", "level", "said"),
    [
        ({}, Level.OK, "7.2.4"),
        ({"redis_version": "5.0.7"}, Level.FAIL, "5.0.7"),
        ({"role": "slave"}, Level.FAIL, "replica"),
        ({"cluster_enabled": 1}, Level.FAIL, "cluster"),
        ({"loading": 1}, Level.WARN, "loads"),
    ],
)
def test_what_redis_says_of_itself(changed: dict[str, object], level: Level, said: str) -> None:
    found = judge_redis.judge_reach({"r:1": info(**changed)})
    assert (found.level, said in found.found) == (level, True), found


FULL = {"maxmemory": 10 << 20}


@pytest.mark.parametrize(
    ("changed", "ttl_s", "level", "said"),
    [
        ({}, 0, Level.OK, "no maxmemory"),
        (FULL, 0, Level.FAIL, "out of memory"),
        ({**FULL, "mem_not_counted_for_evict": 5 << 20}, 0, Level.OK, "5 MiB of 10 MiB"),
        ({"maxmemory": 11 << 20}, 0, Level.WARN, "nearly full"),
        ({"total_system_memory": 11 << 20}, 0, Level.WARN, "nearly full"),
        ({"maxmemory": 1 << 30, "maxmemory_policy": "allkeys-lru"}, 0, Level.WARN, "evicts states"),
        ({**FULL, "maxmemory_policy": "volatile-ttl"}, 0, Level.FAIL, "out of memory"),
        ({**FULL, "maxmemory_policy": "volatile-ttl"}, 60, Level.WARN, "nearly full"),
    ],
)
def test_redis_memory(changed: dict[str, object], ttl_s: int, level: Level, said: str) -> None:
    found = judge_redis.judge_memory({"r:1": info(), "r:2": info(**changed)}, ttl_s)
    assert (found.level, said in found.found, "r:2" in found.found) == (level, True, True), found


@pytest.mark.parametrize(
    ("changed", "level", "said"),
    [
        ({}, Level.OK, "no snapshots"),
        ({"save": "60 1"}, Level.OK, "r:1: snapshots"),
        ({"aof_enabled": 1}, Level.OK, "append-only file"),
        ({"rdb_last_bgsave_status": "err"}, Level.FAIL, "snapshot failed"),
        ({"aof_last_write_status": "err"}, Level.FAIL, "append-only file failed"),
    ],
)
def test_redis_persistence(changed: dict[str, object], level: Level, said: str) -> None:
    found = judge_redis.judge_persistence({"r:1": info(**changed)})
    assert (found.level, said in found.found) == (level, True), found


@pytest.mark.parametrize(
    ("active", "ours", "level"),
    [("a1", "a1", Level.OK), ("a1", None, Level.OK), ("a1", "b2", Level.WARN), (None, "b2", Level.WARN)],
)
def test_the_active_model(active: str | None, ours: str | None, level: Level) -> None:
    assert judge_redis.judge_active(active, ours).level is level
