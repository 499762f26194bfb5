"""The Dockerfile: what it is made from, and what its images run as. docs/deployment.md tells what was built from it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib

import pytest
from prometheus_client import CollectorRegistry

from edge.health import Health, served
from slipstream.stack.process import free_port
from tests.deploy.checked import (
    PROJECT,
    ROOT,
    VERSION,
    image_environment,
    instructions,
    ours,
    settings_of,
    stages,
)

TARGETS = ("cpu", "gpu", "ranking", "tools")
BUNDLE = ROOT / "deploy" / "images" / "bundle.Dockerfile"


def of(stage: str, name: str) -> list[str]:
    return [text for instruction, text in stages()[stage] if instruction == name]


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a file from the build: it leaves out everything and takes some back."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    taken = [line[1:] for line in lines if line.startswith("!")]
    assert "*" in lines
    return not any(path == entry or path.startswith(entry + "/") or entry.startswith(path + "/") for entry in taken)


def test_a_build_without_a_target_makes_the_stages_image_for_cpus() -> None:
    assert list(stages())[-1] == "cpu"


@pytest.mark.parametrize("target", TARGETS)
def test_bases_and_packages_are_pinned(target: str) -> None:
    (base,) = of(target, "FROM")
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base), base
    made = f"build-{target}"
    requirements, code = [text for text in of(made, "RUN") if " install " in text]
    assert "--constraint constraints.txt" in requirements
    assert "--no-deps" in code


def test_the_bundles_base_is_pinned() -> None:
    assert re.fullmatch(r"busybox:\d+\.\d+\.\d+", dict(instructions(BUNDLE))["FROM"])
    assert dict(instructions(BUNDLE))["USER"] == "10001:10001"


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_runs_as_nobody_and_says_whether_it_lives(target: str) -> None:
    assert of(target, "USER") == ["10001:10001"]
    assert image_environment(target)["ORT_DISABLE_TELEMETRY"] == "1"
    assert not any(name in {"ADD", "VOLUME"} for name, _ in stages()[target])
    if target == "tools":
        assert of(target, "HEALTHCHECK") == ["NONE"]
    else:
        (check,) = of(target, "HEALTHCHECK")
        (port,) = of(target, "EXPOSE")
        assert f'"{port}"' in check
        settings = settings_of(ours(image_environment(target)))
        assert settings.metrics_host == "0.0.0.0"
        assert target == "ranking" or (settings.metrics_port == int(port) and Health().answer("/live"))


def test_only_the_tools_bring_what_trains() -> None:
    for target in TARGETS:
        (extras,) = [text.partition("=")[2] for text in of(f"build-{target}", "ARG") if text.startswith("EXTRAS=")]
        named = set(extras.split(","))
        assert named <= PROJECT["optional-dependencies"].keys()
        assert ("train" in named) == (target == "tools")
        assert len(named & {"cpu", "gpu"}) == 1
        assert "movielens" not in named  # not to be handed on


def test_what_is_copied_is_there_and_in_the_context() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    copied = [package.rstrip("*") for package in packages]
    for name, text in instructions():
        if name == "COPY" and not text.startswith("--from"):
            copied += [source for source in text.split()[:-1] if source != "."]
    for source in copied:
        assert (ROOT / source).exists(), source
        assert not ignored(source), source
    for name in ("var", ".git", ".venv", "tests", "docs", "bench-results"):
        assert ignored(name), name


def test_labels_hold_the_version() -> None:
    assert f"VERSION={VERSION}" in of("runtime", "ARG")
    assert 'org.opencontainers.image.licenses="Apache-2.0"' in " ".join(of("cpu", "LABEL"))


def test_the_health_check_asks_the_stage() -> None:
    def check(port: int, path: str = "/live") -> int:
        command = [sys.executable, "-I", str(ROOT / "deploy/images/answers.py"), str(port), path]
        return subprocess.run(command, capture_output=True, timeout=30).returncode

    port = free_port()
    assert check(port) != 0
    with served(CollectorRegistry(), Health({"kafka": "not asked yet"}), port):
        assert check(port) == 0
        assert check(port, "/ready") == 1
