"""What a person sees during a chaos run: how far the flow is, and each thing that is done."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class View:
    """A progress line on a terminal, and a line for each event everywhere. For one thread."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._began_s = time.monotonic()
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
        )
        self._task = self._progress.add_task("events", total=total)

    def __enter__(self) -> View:
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def sent(self, events: int) -> None:
        self._progress.update(self._task, completed=events)

    def say(self, text: str) -> None:
        seconds = time.monotonic() - self._began_s
        self._console.print(f"  {seconds:6.1f} s  {text}", markup=False, soft_wrap=True, highlight=False)
