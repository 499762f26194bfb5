"""Damage for golden bytes: each way of it must raise the contract's own error and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas.errors import ContractError

GOLDEN = Path(__file__).parent.parent / "golden"


def golden(name: str) -> bytes:
    return (GOLDEN / name).read_bytes()


def expected(name: str) -> Any:
    return msgspec.json.decode((GOLDEN / f"{name}.expected.json").read_bytes())


def flips(value: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[int, int, bytes]]:
    """Every single-bit flip of value[start:end]: (byte, bit, damaged value)."""
    for at in range(start, len(value) if end is None else end):
        for bit in range(8):
            damaged = bytearray(value)
            damaged[at] ^= 1 << bit
            yield at, bit, bytes(damaged)


def assert_refused(
    decode: Callable[[bytes], object], value: bytes, error: type[ContractError], what: str, where: str
) -> None:
    """`decode(value)` raises exactly `error`, with `where` beginning its message."""
    try:
        decode(value)
    except Exception as other:
        raised = other
    else:
        pytest.fail(f"{what} was accepted")
    assert type(raised) is error, f"{what} raised {type(raised).__name__}, not {error.__name__}: {raised}"
    assert str(raised).startswith(f"{where}: "), f"{what}: the message does not say where: {raised}"
