"""What decides who may be hit, and what workers are told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bench.chaos.gate import Gate
from bench.chaos.workers import environment_of_workers


def test_one_has_the_gate_alone_when_all_others_are_through() -> None:
    async def play() -> list[str]:
        gate, said = Gate(), []

        async def passing(name: str, ticks: int) -> None:
            async with gate.passing():
                said.append(f"{name} in")
                for _ in range(ticks):
                    await asyncio.sleep(0)
                said.append(f"{name} out")

        async def alone() -> None:
            async with gate.alone():
                said.append("alone in")
                for _ in range(50):
                    await asyncio.sleep(0)
                said.append("alone out")

        async with asyncio.TaskGroup() as group:
            group.create_task(passing("a", 5))
            group.create_task(passing("b", 20))
            await asyncio.sleep(0)
            group.create_task(alone())
            for _ in range(5):
                await asyncio.sleep(0)
            group.create_task(passing("c", 1))
        return said

    assert asyncio.run(play()) == ["a in", "b in", "a out", "b out", "alone in", "alone out", "c in", "c out"]


def test_workers_hear_only_what_this_run_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SLIPSTREAM_PREFIX", "production")
    monkeypatch.setenv("SLIPSTREAM_MAX_AGE_MS", "1")
    environment = environment_of_workers({"prefix": "chaos", "sequence_store": "memory"}, tmp_path / "empty.toml")
    ours = {name: value for name, value in environment.items() if name.startswith("SLIPSTREAM_")}
    assert ours == {
        "SLIPSTREAM_PREFIX": "chaos",
        "SLIPSTREAM_SEQUENCE_STORE": "memory",
        "SLIPSTREAM_CONFIG": str(tmp_path / "empty.toml"),
    }
    assert "PATH" in environment
