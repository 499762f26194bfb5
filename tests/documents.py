"""The commands that a page of the documentation prints, for tests that run them as they stand there."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parents[1]


def commands(page: Path, section: str | None = None) -> list[str]:
    """The lines of the ```sh blocks below a heading of the second level, or of all; of a line that goes on (`\\`) all in one."""
    text = page.read_text()
    if section is not None:
        text = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert blocks, f"{page} has no commands below {section!r}"
    lines = "".join(blocks).replace("\\\n", "").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """A person's: none of this process's settings, and the programs of this Python on the PATH, as where it is activated."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SLIPSTREAM_")}
    return {**clean, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **more}


class Shell:
    """Runs commands one after the other, as a person does in one directory. Those that end in `&` go on until the end."""

    def __init__(self, directory: Path, settings: Mapping[str, str], log: Path) -> None:
        """
        Args:
            settings: added to `environment`.
            log: what the background commands say.
        """
        self.directory, self._log = directory, log
        self._environment = environment(settings)
        self._background: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Shell:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        running = [process for process in self._background if process.poll() is None]
        for process in running:
            os.killpg(process.pid, signal.SIGTERM)
        for process in running:
            process.wait(60)

    def run(self, command: str, exit_code: int = 0, timeout_s: float = 600) -> str:
        """What it prints; that of a background command goes to a file, and is in the message when a later one fails.

        `kill %2` ends the second background command.
        """
        if number := re.fullmatch(r"kill %(\d+)", command):
            ended = self._background[int(number[1]) - 1]
            os.killpg(ended.pid, signal.SIGTERM)
            ended.wait(60)
            return ""
        if command.endswith("&"):
            with self._log.open("ab") as log:
                self._background.append(
                    subprocess.Popen(
                        ["bash", "-c", f"exec {command.removesuffix('&')}"],
                        cwd=self.directory,
                        env=self._environment,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
                )
            return ""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
        )
        said = self._log.read_text(errors="replace")[-3000:] if self._background else ""
        assert done.returncode == exit_code, f"$ {command}\n{done.stdout}\n{said}"
        return done.stdout
