"""What a benchmark says: a table for people, one JSON object for programs."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import psutil
from rich.table import Table

_PACKAGES = ("confluent-kafka", "aiokafka", "faust-streaming", "numpy", "onnxruntime", "onnxruntime-gpu", "redis")


@dataclass(frozen=True)
class Result:
    """
    Attributes:
        bench: the command's name.
        figures: name -> number, or None where it could not be measured. The unit is in the name.
        config: what was run, so that it can be run again.
        details: what stands behind the figures: tables, series for plots.
    """

    bench: str
    figures: Mapping[str, float | int | None]
    config: Mapping[str, Any]
    details: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        return {
            "bench": self.bench,
            "figures": {name: _rounded(value) for name, value in self.figures.items()},
            "config": dict(self.config),
            "machine": machine(),
            "details": dict(self.details),
        }

    def as_table(self) -> Table:
        table = Table(title=f"bench {self.bench}", show_header=False, title_justify="left")
        for name, value in self.figures.items():
            table.add_row(name, "not measured" if value is None else f"{_rounded(value):,}")
        return table


def machine() -> dict[str, Any]:
    """Where it was run: figures of different machines do not compare."""
    installed = {}
    for package in _PACKAGES:
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_1m": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "packages": installed,
    }


def _rounded(value: float | int | None) -> float | int | None:
    """Four digits say all that a shared machine can tell."""
    if not isinstance(value, float):
        return value
    rounded = float(f"{value:.4g}")
    return int(rounded) if rounded == int(rounded) and abs(rounded) >= 1000 else rounded
