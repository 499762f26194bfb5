from __future__ import annotations

import re
from pathlib import Path

import pytest

from schemas.errors import UnavailableError
from slipstream.stack import How, Part
from slipstream.stack.choose import CHECKOUT
from slipstream.stack.docker import Compose, Container
from slipstream.stack.kafka import HEAP, SETTINGS
from tests.slipstream.stack.programs import program

COMPOSE_FILE = CHECKOUT / "docker-compose.yml"


@pytest.fixture
def compose(tmp_path: Path) -> Compose:
    """Its docker writes down what it was asked."""
    script = f'echo "$KAFKA_PORT $*" >> {tmp_path}/asked; case "$*" in *ps*) echo kafka;; esac'
    return Compose(program(tmp_path / "bin", "docker", script), COMPOSE_FILE, tmp_path / "data")


def test_a_container_is_remembered_before_it_is_started(compose: Compose, tmp_path: Path) -> None:
    remembered: list[Part] = []

    def remember(part: Part) -> None:
        assert not (tmp_path / "asked").exists()
        remembered.append(part)

    part = Container(compose, "kafka").launch(tmp_path, {"client": 20123}, print, remember)
    assert remembered == [part]
    assert (part.how, part.address) == (How.DOCKER, "127.0.0.1:20123")
    assert (tmp_path / "asked").read_text() == f"20123 compose -f {COMPOSE_FILE} -p {compose.project} up -d kafka\n"
    redis = Container(compose, "redis").launch(tmp_path, {"client": 20124}, print, lambda part: None)
    assert redis.address == "redis://127.0.0.1:20124/0"


def test_the_image_can_be_fetched_beforehand(compose: Compose, tmp_path: Path) -> None:
    Container(compose, "redis").fetch(print)
    assert (tmp_path / "asked").read_text().endswith("pull --quiet redis\n")


def test_stop_and_running(compose: Compose, tmp_path: Path) -> None:
    assert compose.is_running("kafka")
    assert not compose.is_running("redis")
    compose.stop("kafka", kill=True)
    asked = [line.split(compose.project)[1].strip() for line in (tmp_path / "asked").read_text().splitlines()]
    assert asked[-2:] == ["kill kafka", "rm --stop --force kafka"]


def test_two_data_directories_are_two_projects(compose: Compose, tmp_path: Path) -> None:
    other = Compose(compose.docker, compose.file, tmp_path / "other")
    assert other.project != compose.project
    assert Compose(compose.docker, compose.file, tmp_path / "data").project == compose.project


def test_what_docker_says_is_shown(tmp_path: Path) -> None:
    docker = program(tmp_path, "docker", "echo 'no space left on device' >&2; exit 17")
    with pytest.raises(UnavailableError, match=r"exit status 17[^$]*no space left on device"):
        Compose(docker, COMPOSE_FILE, tmp_path).call("up")


def test_the_container_has_the_settings_of_the_local_broker() -> None:
    found = dict(re.findall(r'^ +KAFKA_(\w+): "(.*)"$', COMPOSE_FILE.read_text(), re.MULTILINE))
    listeners = {
        "listener.security.protocol.map",
        "inter.broker.listener.name",
    }  # named otherwise: one more for containers
    for key, value in SETTINGS.items():
        if key not in listeners:
            assert found[key.upper().replace(".", "_")] == value, key
    assert found["HEAP_OPTS"] == " ".join(HEAP)


def test_the_container_has_the_broker_version_of_the_pom() -> None:
    pom = (CHECKOUT / "deploy/local/pom.xml").read_text()
    version = re.search(r"<artifactId>kafka_2.13</artifactId>\s*<version>(.*)</version>", pom)
    assert version is not None
    assert f"image: apache/kafka:{version[1]}\n" in COMPOSE_FILE.read_text()
