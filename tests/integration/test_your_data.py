"""docs/your-data.md: its commands run as they stand there, on its example, on real Kafka and Redis."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path

import pytest

from slipstream.stack import Stack
from tests.documents import ROOT, Shell, commands

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

PAGE, EXAMPLE = ROOT / "docs" / "your-data.md", ROOT / "examples" / "your-data"


def test_from_a_parquet_log_to_a_ranker_in_ten_commands(stack: Stack, prefix: str, tmp_path: Path) -> None:
    change_directory, *lines = commands(PAGE, "Ten commands")
    assert change_directory == "cd examples/your-data"
    assert len(lines) <= 10
    directory = tmp_path / "your-data"
    shutil.copytree(EXAMPLE, directory, ignore=shutil.ignore_patterns("var", "*.parquet", "items.txt"))
    environment = {
        "SLIPSTREAM_KAFKA_BOOTSTRAP": stack.kafka_bootstrap,
        "SLIPSTREAM_REDIS_URL": stack.redis_url,
        "SLIPSTREAM_PREFIX": prefix,
    }
    with Shell(directory, environment, tmp_path / "background.log") as shell:
        said = {line: shell.run(line) for line in lines}
        ranked = said["python rank.py c-17 c-112"].splitlines()
        assert [line.split(",")[0] for line in ranked] == ["c-17: present", "c-112: present"]
        items = set((directory / "items.txt").read_text().split())
        assert all(set(line.rsplit(": ", 1)[1].split(", ")) <= items for line in ranked)
        assert "200 states checked against fresh encodings, 0 wrong" in said["slipstream verify"]

        # What the page says beside.
        shown = shell.run("slipstream state show c-17")
        assert "SKU-" in shown
        assert "viewed" in shown
        by_name = shell.run("slipstream rank c-17 --item SKU-04-000 --item SKU-09-001")
        assert "SKU-04-000" in by_name
        assert "SKU-09-001" in by_name


def test_the_page_shows_the_examples_settings() -> None:
    shown = PAGE.read_text().partition("```toml\n")[2].partition("```")[0]
    assert tomllib.loads(shown) == tomllib.loads((EXAMPLE / "slipstream.toml").read_text())
