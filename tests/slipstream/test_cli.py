"""The command line as a person meets it: a process, its exit code, what it says."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from typer.testing import CliRunner

from slipstream.cli.app import app
from tests.bundles import random_bundle

COMMANDS = (
    "up", "down", "status", "config show", "config reference", "doctor", "topics create", "ingest", "sequence",
    "encode", "replay", "replay-raw", "simulate", "train", "export", "evaluate", "train-ranker", "evaluate-ranker",
    "model status", "model activate", "model retire", "state show", "rank", "verify", "demo", "forget", "bench stream",
    "bench chaos", "size", "bench refresh", "bench e2e", "bench scale", "bench backfill", "bench accelerators",
    "bench rank", "bench state", "bench tables", "bench soak", "dead-letters list", "dead-letters show",
    "dead-letters replay", "dead-letters drop", "watch",
)  # fmt: skip
NOWHERE = "127.0.0.1:1"
SPAN = ("--since", "2m", "--until", "1m")


def _slipstream(cwd: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SLIPSTREAM_")}
    return subprocess.run(
        [sys.executable, "-m", "slipstream", *arguments],
        cwd=cwd,
        env={**clean, "PYTHONPATH": str(Path(__file__).parents[2]), "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_every_command_is_listed_here() -> None:
    import typer.main

    def names(group: typer.main.click.Group, before: str = "") -> set[str]:
        found: set[str] = set()
        for name, command in group.commands.items():
            subcommands = getattr(command, "commands", None)
            found |= names(command, f"{before}{name} ") if subcommands else {before + name}  # type: ignore[arg-type]
        return found

    assert names(typer.main.get_command(app)) == set(COMMANDS)  # type: ignore[arg-type]


def test_a_command_imports_what_it_needs_alone() -> None:
    heavy = {"redis", "aiokafka", "faust", "onnxruntime", "torch", "pyarrow", "matplotlib", "opentelemetry.sdk"}
    code = f"import sys, slipstream.cli, stream.ingest; print(sorted({heavy!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == "[]\n"


def test_the_version_is_the_packages(tmp_path: Path) -> None:
    done = _slipstream(tmp_path, "--version")
    assert (done.returncode, done.stdout) == (0, f"slipstream {metadata.version('slipstream-embeddings')}\n")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_it_does(command: str) -> None:
    done = CliRunner().invoke(app, [*command.split(), "--help"])
    assert done.exit_code == 0, done.output
    assert "Examples:" in done.stdout
    assert "--help" in done.stdout


def test_without_a_command_the_commands_are_listed(tmp_path: Path) -> None:
    done = _slipstream(tmp_path)
    assert done.returncode == 2, done.stderr
    assert {command.split()[0] for command in COMMANDS} <= set((done.stdout + done.stderr).split())


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["no-such-command"], 2, "no-such-command"),
        (["ingest"], 2, "slipstream up"),
        (["--prefix", "a_b", "ingest"], 2, "a_b"),
        (["--config", "nowhere.toml", "ingest"], 2, "nowhere.toml"),
        (["--kafka-bootstrap", "x:9", "--redis-url", "redis://x", "encode"], 4, "slipstream train"),
        (["--bundle", ".", "--kafka-bootstrap", "x:9", "--redis-url", "redis://x", "encode"], 4, "manifest.json"),
        (["--kafka-bootstrap", "x:9", "replay", "nothing.csv"], 4, "nothing.csv"),
        (["--kafka-bootstrap", "x:9", "replay", "nothing.doc"], 2, "nothing.doc"),
        (["--kafka-bootstrap", "x:9", "replay", "ml-100k", "--rate", "0"], 2, "rate"),
        (["--kafka-bootstrap", "x:9", "replay", "ml-100k", "--rate", "1", "--speed", "2"], 2, "--speed"),
        (["--kafka-bootstrap", "x:9", "replay", "ml-100k", "--late", "2"], 2, "late"),
        (["--kafka-bootstrap", "x:9", "replay-raw", "t", "--since", "noon", "--until", "1m"], 2, "--since noon"),
        (["--kafka-bootstrap", "x:9", "replay-raw", "t", "--since", "1m", "--until", "2m"], 2, "not after its beginning"),
        (["--kafka-bootstrap", "x:9", "--prefix", "t", "replay-raw", "t.engagements", *SPAN], 2, "itself"),
        (["train", "ml-100k", "--preset", "huge"], 2, "huge"),
        (["train", "log.csv", "--action-value", "5"], 2, "VALUE=NAME"),
        (["demo", "--kill", "kafka"], 2, "kafka"),
        (["status"], 6, "never started"),
        (["--kafka-bootstrap", NOWHERE, "topics", "create"], 6, NOWHERE),
    ],
)  # fmt: skip
def test_what_goes_wrong_has_its_exit_code_and_a_message(
    tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    done = _slipstream(tmp_path, *arguments)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_variable_is_named(tmp_path: Path) -> None:
    done = _slipstream(tmp_path, "config", "show", SLIPSTREAM_PREFIXX="x")
    assert (done.returncode, "SLIPSTREAM_PREFIXX" in done.stderr) == (2, True)


def test_config_shows_values_and_masks_secrets(tmp_path: Path) -> None:
    done = _slipstream(
        tmp_path,
        "config",
        "show",
        "--json",
        SLIPSTREAM_REDIS_URL="redis://:hunter2@h",
        SLIPSTREAM_KAFKA_OPTIONS='{"sasl.password":"hunter3","sasl.username":"u"}',
        SLIPSTREAM_SCHEMA_REGISTRY_URL="https://me:hunter4@h",
        SLIPSTREAM_SCHEMA_REGISTRY_OPTIONS='{"basic.auth.user.info":"me:hunter5"}',
    )
    assert done.returncode == 0, done.stderr
    assert "hunter" not in done.stdout + done.stderr
    shown = json.loads(done.stdout)
    assert shown["kafka_options"]["value"]["sasl.username"] == "u"
    assert (shown["kafka_options"]["source"], shown["prefix"]["source"]) == ("environment", "default")


def test_the_page_of_the_settings_is_what_the_command_prints(tmp_path: Path) -> None:
    done = _slipstream(tmp_path, "config", "reference")
    page = Path(__file__).parents[2] / "docs" / "settings.md"
    assert done.stdout == page.read_text(), "run `slipstream config reference > docs/settings.md`"


def test_a_format_that_needs_a_registry_says_so(tmp_path: Path) -> None:
    done = _slipstream(tmp_path, "--kafka-bootstrap", "x:9", "config", "show", SLIPSTREAM_FORMATS='["json","xml"]')
    assert (done.returncode, "formats" in done.stderr) == (2, True)
    done = _slipstream(tmp_path, "--kafka-bootstrap", "x:9", "ingest", SLIPSTREAM_FORMATS='["json","avro"]')
    assert (done.returncode, "schema_registry_url" in done.stderr) == (2, True), done.stderr


def test_nothing_runs_so_nothing_is_stopped(tmp_path: Path) -> None:
    done = _slipstream(tmp_path, "down")
    assert (done.returncode, "nothing" in done.stderr) == (0, True)


def test_a_model_of_another_vocabulary_is_refused(tmp_path: Path) -> None:
    random_bundle(tmp_path / "model")
    done = _slipstream(
        tmp_path,
        *("--bundle", "model", "--kafka-bootstrap", "x:9", "--redis-url", "redis://x", "encode"),
        SLIPSTREAM_ACTIONS='["other","save","view"]',
    )
    assert (done.returncode, "actions" in done.stderr) == (2, True)


def test_the_doctor_ends_in_time_although_nothing_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        at = f"127.0.0.1:{silent.getsockname()[1]}"
        addresses = ("--kafka-bootstrap", at, "--redis-url", f"redis://:hunter2@{at}")
        done = _slipstream(
            tmp_path, *addresses, "doctor", "--timeout", "2", "--only", "kafka", "--only", "redis", "--json"
        )
    assert done.returncode == 12, done.stderr
    found = {check["check"]: check["found"] for check in json.loads(done.stdout)["checks"] if check["level"] == "fail"}
    assert found == {"kafka": "no answer within 2 s", "redis": "no answer within 2 s"}
    assert "Traceback" not in done.stderr
