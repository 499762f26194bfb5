from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from schemas.errors import ConfigError, PrerequisiteError
from slipstream.stack import fetch, maven
from slipstream.stack.maven import CONTENTS, cache_entry, is_whole, kafka_jars
from tests.slipstream.stack.programs import machine, program

# Writes two jars where it is told to, and a line for every call.
COPY = """
echo call >> {calls}
for argument in "$@"; do case $argument in -DoutputDirectory=*) target=${{argument#*=}};; esac; done
mkdir -p "$target"
echo kafka > "$target/kafka_2.13-4.jar"
{then}
echo scala > "$target/scala.jar"
"""


@pytest.fixture
def pom(tmp_path: Path) -> Path:
    file = tmp_path / "pom.xml"
    file.write_text("<project/>")
    return file


def mvn(tmp_path: Path, then: str = ":") -> Path:
    return program(tmp_path / "bin", "mvn", COPY.format(calls=tmp_path / "calls", then=then))


def calls(tmp_path: Path) -> int:
    return len((tmp_path / "calls").read_text().splitlines())


def test_jars_are_fetched_once_for_a_pom(tmp_path: Path, pom: Path) -> None:
    said: list[str] = []
    cache = tmp_path / "cache"
    jars = kafka_jars(pom, cache, mvn(tmp_path), said.append)
    assert sorted(file.name for file in jars.iterdir()) == [CONTENTS, "kafka_2.13-4.jar", "scala.jar"]
    assert len(said) == 1
    assert kafka_jars(pom, cache, None, said.append) == jars  # Maven is not needed any more
    assert (calls(tmp_path), len(said)) == (1, 1)
    pom.write_text("<project><!-- another version --></project>")
    assert kafka_jars(pom, cache, mvn(tmp_path), said.append) != jars
    assert calls(tmp_path) == 2


def test_a_half_copied_cache_is_not_taken_for_whole(tmp_path: Path, pom: Path) -> None:
    cache = tmp_path / "cache"
    entry = cache_entry(pom, cache)
    left_behind = cache / f"{entry.name}.part-1"
    for directory in (left_behind, entry):  # killed in the middle; copied there by hand
        directory.mkdir(parents=True)
        (directory / "kafka_2.13-4.jar").write_text("half")
    assert not is_whole(entry)
    assert is_whole(kafka_jars(pom, cache, mvn(tmp_path), print))
    assert not left_behind.exists()


@pytest.mark.parametrize("damage", ["lost", "short", "no contents"])
def test_a_damaged_cache_is_made_again(tmp_path: Path, pom: Path, damage: str) -> None:
    entry = kafka_jars(pom, tmp_path / "cache", mvn(tmp_path), print)
    match damage:
        case "lost":
            (entry / "scala.jar").unlink()
        case "short":
            (entry / "scala.jar").write_text("sc")
        case _:
            (entry / CONTENTS).write_text("{}")
    assert not is_whole(entry)
    assert is_whole(kafka_jars(pom, tmp_path / "cache", mvn(tmp_path), print))
    assert calls(tmp_path) == 2


@pytest.mark.parametrize(
    ("then", "said"),
    [("echo 'Could not resolve host'; exit 1", "Could not resolve host"), ('rm "$target"/*', "no Kafka")],
)
def test_when_maven_fails_its_words_are_shown_and_nothing_stays(
    tmp_path: Path, pom: Path, then: str, said: str
) -> None:
    cache = tmp_path / "cache"
    with pytest.raises(PrerequisiteError, match=said):
        kafka_jars(pom, cache, mvn(tmp_path, then), print)
    assert [file.name for file in cache.iterdir() if file.is_dir()] == []
    assert is_whole(kafka_jars(pom, cache, mvn(tmp_path), print))


def test_without_maven_the_message_says_so(tmp_path: Path, pom: Path) -> None:
    with pytest.raises(PrerequisiteError, match=r"Maven \(mvn\)"):
        kafka_jars(pom, tmp_path / "cache", None, print)


def test_a_cache_that_cannot_be_written_is_a_clear_error(tmp_path: Path, pom: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match="XDG_CACHE_HOME"):
        kafka_jars(pom, tmp_path / "file" / "cache", mvn(tmp_path), print)


def test_a_maven_that_hangs_is_given_up(tmp_path: Path, pom: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maven, "DOWNLOAD_TIMEOUT_S", 0.2)
    with pytest.raises(PrerequisiteError, match="did not finish"):
        kafka_jars(pom, tmp_path / "cache", mvn(tmp_path, "exec sleep 30"), print)


def test_several_processes_fetch_once(tmp_path: Path, pom: Path) -> None:
    tool, cache = mvn(tmp_path, "sleep 0.3"), tmp_path / "cache"
    call = f"kafka_jars(Path({str(pom)!r}), Path({str(cache)!r}), Path({str(tool)!r}), print)"
    code = f"from pathlib import Path; from slipstream.stack.maven import kafka_jars; {call}"
    running = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait() for process in running] == [0, 0, 0]
    assert calls(tmp_path) == 1
    assert is_whole(cache_entry(pom, cache))


def test_fetch_starts_nothing(tmp_path: Path) -> None:
    mvn(tmp_path)
    program(tmp_path / "bin", "java", "echo 'openjdk version \"17.0.1\"' >&2")
    program(tmp_path / "bin", "redis-server", f"touch {tmp_path}/started")
    here = machine(tmp_path)
    fetch(machine=here)
    assert is_whole(cache_entry(here.checkout / "deploy/local/pom.xml", here.cache_dir))
    fetch("given:9092", "redis://given/0", machine=machine(tmp_path, path=""))
    assert calls(tmp_path) == 1
    assert not (tmp_path / "started").exists()
