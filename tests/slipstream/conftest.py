"""The command line, typed into this process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from slipstream.cli import main


class Said(NamedTuple):
    """What a command left: as of a process of its own (tests.slipstream.test_cli), which would import torch for seconds."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """In `tmp_path`, with none of this environment's settings."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    for name in [name for name in os.environ if name.startswith("SLIPSTREAM_")]:
        monkeypatch.delenv(name)

    def type_in(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["slipstream", *arguments])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0
        return Said(code, *capsys.readouterr())

    return type_in
