"""What the tests of compose, images and manifests check alike: settings, commands and the image's stages are real ones."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from unittest import mock

from typer.testing import CliRunner

from slipstream.cli.app import app
from slipstream.settings import Settings, load_settings

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "deploy" / "images" / "Dockerfile"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VERSION: str = PROJECT["version"]


def settings_of(*environments: Mapping[str, str]) -> Settings:
    """What a container's variables come to. Raises ConfigError if one is no setting, or has a value that cannot be."""
    merged = {name: value for environment in environments for name, value in environment.items()}
    with mock.patch.dict(os.environ, merged, clear=True):
        return load_settings(None, {})


@cache
def _parses(*arguments: str) -> str | None:
    ran = CliRunner().invoke(app, [*arguments, "--help"])
    return None if ran.exit_code == 0 else ran.output


def assert_command_exists(arguments: Sequence[str]) -> None:
    """Also that its options do."""
    wrong = _parses(*arguments)
    assert wrong is None, f"slipstream {' '.join(arguments)}: {wrong}"


def instructions(dockerfile: Path = DOCKERFILE) -> list[tuple[str, str]]:
    """Each instruction and its text, continued lines joined, comments left out."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    found = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [(name, text) for name, text in found]


def stages() -> dict[str, list[tuple[str, str]]]:
    """The image's stages by name: the instructions of each, those of the stages that it begins with included."""
    arguments: dict[str, str] = {}
    made: dict[str, list[tuple[str, str]]] = {}
    current: list[tuple[str, str]] = []
    for name, text in instructions():
        if name == "FROM":
            base, _, stage = re.sub(r"\$\{(\w+)\}", lambda m: arguments[m[1]], text).partition(" AS ")
            made[stage] = current = [*made.get(base, [("FROM", base)])]
        elif not made:
            assert name == "ARG"
            arguments.update([text.split("=", 1)])
        else:
            current.append((name, text))
    return made


def image_environment(stage: str) -> dict[str, str]:
    pairs = [re.findall(r"(\w+)=(\S+)", text) for name, text in stages()[stage] if name == "ENV"]
    return dict(pair for found in pairs for pair in found)


def ours(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith("SLIPSTREAM_")}
