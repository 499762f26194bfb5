"""docs/start.md, followed to the letter: its commands as they stand there, in one shell, each with what it promises to show.

A block of `sh` is run; a block of `text` that follows is what must be seen. Numbers may differ, lines may lie between. What jobs
in the background say is waited for, and commands that only look are asked again, as a person would.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from slipstream.stack import down
from tests.documents import environment

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "start.md").read_text()
#: Installs, which has been done.
NOT_HERE = "make setup"
LOOKS = ("model status", "state show", "rank", "verify", "dead-letters list", "doctor")
#: What a number may not hide.
EXACT = ("length           89", "length           149", "2,000 events", "sequences checked against the raw topic, 0 wrong",
         "states checked against fresh encodings, 0 wrong")  # fmt: skip
PATIENCE_S = 400.0


class Step(NamedTuple):
    commands: str
    promised: list[str]

    @property
    def only_looks(self) -> bool:
        """Whether it may be asked again."""
        lines = [line for line in self.commands.splitlines() if not line.startswith(("wait ", "tail "))]
        return all(line.startswith(tuple(f"slipstream {look}" for look in LOOKS)) for line in lines)


def steps() -> Iterator[Step]:
    for commands, promised in re.findall(
        r"^```sh\n(.*?)^```\n(?:\s*^```text\n(.*?)^```)?", PAGE, re.DOTALL | re.MULTILINE
    ):
        if NOT_HERE not in commands:
            yield Step(commands, [line for line in promised.splitlines() if line != "..."])


def shape(line: str) -> str:
    """A line without its ids, its numbers but 0, and the lines of tables."""
    line = re.sub(r"\b[0-9a-f]{16}\b", "#", re.sub("[│┃]", " ", line))
    return " ".join(re.sub(r"[+-]?\d[\d,.:]*Z?", lambda number: "0" if number[0] == "0" else "#", line).split())


def missing(step: Step, printed: str) -> list[str]:
    """What was promised and is not there."""
    seen = {shape(line) for line in printed.splitlines()}
    exact = [figure for figure in EXACT if any(figure in line for line in step.promised)]
    return [line for line in step.promised if shape(line) not in seen] + [
        figure for figure in exact if figure not in printed
    ]


class Shell:
    """A bash that a person types into. It notes all that is printed, by background jobs too."""

    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(
            ["bash"],
            cwd=directory,
            env=environment({"COLUMNS": "150"}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.printed = ""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.printed += line

    def type(self, commands: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(commands)
        self._process.stdin.flush()

    def close(self) -> None:
        """End whatever still runs in it."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
            except ProcessLookupError:
                break
            time.sleep(0.5 if number == signal.SIGTERM else 0)
        self._process.wait(10)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    typed = Shell(tmp_path)
    yield typed
    typed.close()
    down(tmp_path / "var", discard_data=True)


@pytest.mark.timeout(1200)
def test_the_start_page_shows_what_it_promises(shell: Shell) -> None:
    for number, step in enumerate(steps()):
        # What is waited for may have been said before.
        before = 0 if step.commands.startswith("wait $") else len(shell.printed)
        until = time.monotonic() + PATIENCE_S
        asked = 0
        while not asked or missing(step, shell.printed[before:]):
            said = shell.printed[before:]
            assert time.monotonic() < until, f"{step.commands}promised {missing(step, said)}, printed:\n{said}"
            if not asked or (step.only_looks and f"step {number}.{asked}\n" in said):
                asked += 1
                shell.type(f"{step.commands}echo step {number}.{asked}\n")
            time.sleep(0.05)
    assert not [figure for figure in EXACT if figure not in PAGE]
    assert "Traceback" not in shell.printed
