"""docs/state-format.md is right: its tables are the layout's, and its reader, run as it stands there, reads the golden files."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encoder.features import item_rows, splitmix64
from schemas import state as layout
from schemas.bundle import PRESETS
from schemas.state import StateLayout
from tests.golden import make
from tests.schemas.damage import expected, flips, golden
from tests.schemas.test_state import LAYOUT

DOCUMENT = (Path(__file__).parents[2] / "docs" / "state-format.md").read_text()
SHAPE = (make.LAYERS, make.KV_HEADS, make.HEAD_DIM, make.D_MODEL)
Read = Callable[[bytes], tuple[str, Any]]


@pytest.fixture(scope="module")
def read() -> Read:
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(code, namespace)
    return lambda value: namespace["read_state"](value, make.MODEL_ID, SHAPE)


def rows_of(title: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    section = DOCUMENT.split(f"## {title}")[1].split("\n## ")[0]
    table = [line for line in section.splitlines() if line.startswith("| ")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


@pytest.mark.parametrize("name", ["state.bin", "state-full-step.bin", "state-slack.bin"])
def test_the_documents_reader_reads_the_golden_states(read: Read, name: str) -> None:
    want = expected(name)
    status, state = read(golden(name))
    assert status == "PRESENT"
    assert state["arrived_ms"] == want["header"]["arrived_ms"]
    assert list(state["embedding"]) == want["embedding"]
    got = [
        {
            "event": dict(zip(("timestamp_ms", "item_id", "action", "surface"), event, strict=True)),
            "kv": list(kv),
            "scales": list(scales),
        }
        for event, kv, scales in state["slots"]
    ]
    assert got == want["slots"]


def test_the_documents_reader_finds_nobody(read: Read) -> None:
    assert read(golden("state-deleted.bin")) == ("NOT_FOUND", None)
    assert read(b"") == ("NOT_FOUND", None)
    assert read(golden("state-version-1.bin")) == ("INVALID", None)


def test_the_documents_reader_refuses_what_the_document_says(read: Read) -> None:
    value = golden("state.bin")
    assert LAYOUT.value_bytes(3) == 712
    assert "(byte\n711)" in DOCUMENT
    assert "each length below 712" in DOCUMENT
    for byte, bit, damaged in flips(value, 0, 712):
        assert read(damaged) == ("INVALID", None), (byte, bit)
    for length in range(1, 712):
        assert read(value[:length]) == ("INVALID", None), length


def test_the_header_table_is_the_layout() -> None:
    rows = rows_of("The header: 128 bytes")
    at = 0
    letters = {"u8": "B", "u16": "H", "u32": "I", "i64": "q"}
    form = "<"
    for offset, size, kind, field, _ in rows:
        assert int(offset) == at, field
        at += int(size)
        form += f"{size}x" if field == "reserved" else letters.get(kind, f"{size}s")
    assert at == layout.FIXED_BYTES
    assert form == layout._HEADER.format
    places = {field: (int(offset), int(offset) + int(size)) for offset, size, _, field, _ in rows}
    assert places["revision"] == layout.REVISION_AT
    assert places["topic_id"] == layout.TOPIC_AT
    assert places["changelog_offset"] == layout.OFFSET_AT
    assert places["changelog_partition"] == layout.PARTITION_AT


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_the_slot_table_is_the_layout(preset: str) -> None:
    slot = StateLayout(PRESETS[preset], make.MODEL_ID)
    s = slot.shape
    sizes = {"L": s.layers, "G": s.kv_heads, "D": s.head_dim}

    def value(formula: str) -> int:
        return sum(np.prod([sizes[f] if f in sizes else int(f) for f in term.split()]) for term in formula.split("+"))

    at = 0
    for offset, size, *_ in rows_of("The slots"):
        assert value(offset) == at
        at += value(size)
    assert at == slot.slot_bytes == value("20 + 2 L G D + 2 L G")


def test_the_check_value_of_the_checksum() -> None:
    assert f"{zlib.crc32(b'123456789'):X}" == "CBF43926"
    assert "CBF43926" in DOCUMENT


def test_every_golden_state_is_named() -> None:
    states = {name for name in make.golden() if name.startswith("state")}
    assert {row[0].strip("`") for row in rows_of("Golden files")} == states


def test_the_item_hash_is_the_documents() -> None:
    mask = (1 << 64) - 1
    constants = [int(found, 16) for found in re.findall(r"\b[0-9A-F]{16}\b", DOCUMENT)]

    def documented(x: int) -> int:
        z = (x + constants[0]) & mask
        z = ((z ^ (z >> 30)) * constants[1]) & mask
        z = ((z ^ (z >> 27)) * constants[2]) & mask
        return z ^ (z >> 31)

    for item_id in (0, 1, 4711, (1 << 63) - 1):
        assert documented(item_id) == int(splitmix64(np.array([item_id], np.uint64))[0])
    rows = item_rows(np.array([4711]), range(100, 108), 1000)
    assert rows[:, 0].tolist() == [documented(4711 ^ seed) % 1000 for seed in range(100, 108)]


def test_struct_of_the_code_is_the_tables() -> None:
    assert struct.Struct(re.search(r'Struct\("(<[^"]+)"\)', DOCUMENT)[1]).size == layout.FIXED_BYTES  # type: ignore[index]
