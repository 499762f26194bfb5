"""What a training leaves of its way: metrics.jsonl, a JSON object a line, and event files for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from encoder.train_config import Measured, Progress

METRICS, TENSORBOARD = "metrics.jsonl", "tensorboard"
#: A line after this long, and later after a longer time, so that a training of days has some thousand lines.
_EVERY_S, _EVERY_SHARE = 1.0, 0.002


class Recorder:
    """Writes into a directory; use it as a context."""

    def __init__(self, directory: Path, from_step: int) -> None:
        """
        Args:
            from_step: of the state that is resumed; what an earlier run wrote of later steps is taken out. 0: begin anew.
        """
        directory.mkdir(parents=True, exist_ok=True)
        kept = [line for line in read_metrics(directory) if line["step"] <= from_step] if from_step else []
        self._file = (directory / METRICS).open("wb")
        for line in kept:
            self._write(line)
        self._board = _board(directory / TENSORBOARD, from_step)
        self._written_s = kept[-1]["seconds"] if kept else 0.0

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        if self._board:
            self._board.close()

    def progress(self, p: Progress) -> None:
        if p.remaining_s > 0 and p.seconds < self._written_s + _EVERY_S + _EVERY_SHARE * p.seconds:
            return
        self._written_s = p.seconds
        values = {"loss": p.loss, "crossing_loss": p.crossing_loss, "learning_rate": p.learning_rate}
        self._add("train", p.step, p.seconds, values | {"events_per_s": p.events_per_s})

    def measured(self, m: Measured) -> None:
        self._add("validation", m.step, m.seconds, {"hr10": m.hr10, "ndcg10": m.ndcg10, "targets": m.targets})

    def _add(self, of: str, step: int, seconds: float, values: dict[str, float]) -> None:
        self._write({"of": of, "step": step, "seconds": round(seconds, 3), **values})
        self._file.flush()
        if self._board:
            for name, value in values.items():
                self._board.add_scalar(f"{of}/{name}", value, step)

    def _write(self, line: dict[str, Any]) -> None:
        self._file.write(msgspec.json.encode(line) + b"\n")


def read_metrics(directory: Path) -> list[dict[str, Any]]:
    """The lines of a training; empty if there are none. A last line that a crash cut short is left out."""
    file = directory / METRICS
    lines: list[dict[str, Any]] = []
    for line in file.read_bytes().splitlines() if file.exists() else ():
        try:
            lines.append(msgspec.json.decode(line))
        except msgspec.DecodeError:
            break
    return lines


def _board(directory: Path, from_step: int) -> Any:
    """A writer of TensorBoard's event files, or None where the package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    if not from_step and directory.is_dir():
        for file in directory.glob("events.out.tfevents.*"):  # of another training
            file.unlink()
    return SummaryWriter(str(directory), purge_step=from_step or None)
