"""docs/upgrades.md tells the version of each thing that is stored, as the code has it."""

from __future__ import annotations

import re
from pathlib import Path

from encoder import checkpoint
from ranker.head import saved
from schemas import batch, bundle, sequence, sequence_store, state

PAGE = (Path(__file__).parents[2] / "docs" / "upgrades.md").read_text()


def test_each_version_is_told() -> None:
    told = {what: int(version) for what, version in re.findall(r"^\| ([a-z ]+) \| (\d+) \|", PAGE, re.MULTILINE)}
    assert told == {
        "batch": batch.VERSION,
        "sequence": sequence.VERSION,
        "sequence table": sequence_store.VERSION,
        "state": state.VERSION,
        "bundle": bundle.VERSION,
        "checkpoint": checkpoint.VERSION,
        "ranker": saved.VERSION,
    }
