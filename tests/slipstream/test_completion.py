"""`slipstream --install-completion`: what shells are told when Tab is pressed, asked as they ask."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

#: The installed command: completion goes by its name.
SLIPSTREAM = Path(sys.executable).with_name("slipstream")
LETTERS = ["list", "show", "replay", "drop"]


def _said(*command: str | Path, **environment: str) -> str:
    path = f"{SLIPSTREAM.parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, **environment}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=True).stdout


def test_bash_completes_subcommands() -> None:
    """The script that is installed, in a real bash."""
    pressed = 'COMP_WORDS=(slipstream dead-letters ""); COMP_CWORD=2; _slipstream_completion slipstream'
    script = f'eval "$(_SLIPSTREAM_COMPLETE=source_bash slipstream)"; {pressed}; echo "${{COMPREPLY[@]}}"'
    assert _said("bash", "-c", script).split() == LETTERS


def test_zsh_is_told_commands_and_what_they_do() -> None:
    words = {"_SLIPSTREAM_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "slipstream dead-letters "}
    told = _said(SLIPSTREAM, **words)
    assert told.startswith("_arguments ")
    assert all(f'"{command}":"' in told for command in LETTERS)
    assert "#compdef slipstream" in _said(SLIPSTREAM, _SLIPSTREAM_COMPLETE="source_zsh")
