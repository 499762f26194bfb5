"""Imports go one way: schemas <- edge <- stream, encoder <- ranker <- slipstream <- bench. stream and encoder share no code."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "schemas": set(),
    "edge": {"schemas"},
    "stream": {"schemas", "edge"},
    "encoder": {"schemas", "edge"},
    "ranker": {"schemas", "edge", "encoder"},
    "slipstream": {"schemas", "edge", "stream", "encoder", "ranker"},
    "bench": {"schemas", "edge", "stream", "encoder", "ranker", "slipstream"},
}
#: The command line's doors to the benchmarks, which stand above it: imported when a command is run.
UPWARDS = {
    ROOT / f"slipstream/cli/{name}.py": {"bench"}
    for name in ("bench", "bench_group", "bench_rank", "bench_soak", "bench_states", "evaluate", "train_ranker")
}


def _imported_packages(file: Path) -> set[str]:
    packages: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            packages |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            packages.add(node.module.split(".")[0])
    return packages


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_a_package_imports_only_what_is_below_it(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        ours = _imported_packages(file) & MAY_IMPORT.keys()
        assert ours <= MAY_IMPORT[package] | {package} | UPWARDS.get(file, set()), file


def test_the_contracts_need_numpy_and_msgspec_alone() -> None:
    import sys

    for file in (ROOT / "schemas").rglob("*.py"):
        assert _imported_packages(file) <= {"numpy", "msgspec", "schemas"} | set(sys.stdlib_module_names), file
