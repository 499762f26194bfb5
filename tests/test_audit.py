"""The audit of the dependencies that `make lint` runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tools import audit


def test_each_dependency_of_the_product_is_pinned_and_may_be_used() -> None:
    needed = audit.dependencies(audit.PROJECT, ["train"])
    assert {"confluent-kafka", "torch", "msgspec", "python-dateutil"} <= needed  # the last by matplotlib alone
    assert audit.unpinned(needed, audit.CONSTRAINTS.read_text()) == []
    assert audit.incompatible(audit.licences_of(needed)) == []


def test_what_is_wrong_is_named() -> None:
    assert audit.unpinned(["msgspec", "numpy"], "# made by\nmsgspec==0.0.1\n")[0].endswith("constraints.txt says 0.0.1")
    assert audit.unpinned(["numpy"], "")[0].endswith("not in constraints.txt")
    licences = {"a": "MIT AND GPL-3.0-only", "b": "MIT License", "nvidia-x": "Proprietary", "c": "UNKNOWN"}
    assert audit.incompatible(licences) == ["a: MIT AND GPL-3.0-only", "c: UNKNOWN"]
    answered = {"name": "x", "version": "1", "vulns": [{"id": "PYSEC-2026-1", "fix_versions": ["2", "1.1"]}]}
    report = {"dependencies": [answered, {"name": "y", "skip_reason": "not found"}]}
    assert audit.known_weaknesses(report) == (["x 1: PYSEC-2026-1, fixed in 2, 1.1"], 1)


def test_without_a_network_nothing_is_looked_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "constraints.txt").write_text("msgspec==0.0.1\n")
    assert audit.look_up(tmp_path / "constraints.txt") is None
