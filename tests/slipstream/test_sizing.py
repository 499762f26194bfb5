"""Sizes on paper: the arithmetic, where its costs come from, and that docs/scaling.md has what the command prints."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from schemas.bundle import PRESETS
from schemas.capacity import STRING_BYTES, block_bytes
from schemas.errors import ConfigError
from schemas.state import StateLayout
from slipstream.cli.app import app
from slipstream.sizing import BUSY, Demand, size
from slipstream.sizing_costs import Costs, EncodeCosts, with_measured
from slipstream.sizing_table import in_bytes, rows

DOCUMENT = Path(__file__).parents[2] / "docs/scaling.md"
COSTS = Costs(
    ingest_us=4,
    sequence_us=3,
    rewrite_us=27,
    redis_write_us=30,
    encode={"small": EncodeCosts(200, 300, 6000, 0.4, 50_000, 25_000), "nano": EncodeCosts(100, 200, 900, 0.7)},
)


def test_cores_are_cpu_time_over_what_a_core_may_be_busy() -> None:
    found = size(Demand(1_000_000, 60_000), COSTS)
    assert found.ingest_cores == pytest.approx(60_000 * 4e-6 / BUSY)
    assert found.sequence_cores == pytest.approx(60_000 * 30e-6 / BUSY)
    assert found.encoder_cores == pytest.approx(60_000 * 300e-6 / BUSY)
    assert size(Demand(1_000_000, 60_000, hot_share=1), COSTS).encoder_cores == pytest.approx(60_000 * 200e-6 / BUSY)


def test_a_state_takes_the_block_that_redis_has_for_it() -> None:
    layout = StateLayout(PRESETS["small"], "")
    full = block_bytes(layout.value_bytes(256) + STRING_BYTES)
    assert full < size(Demand(10, 1, events_per_user=5000), COSTS).state_bytes < full + 500
    assert size(Demand(10, 1, events_per_user=20), COSTS).state_bytes < full / 8


def test_shards_are_by_memory_or_by_work_whichever_needs_more() -> None:
    assert size(Demand(100_000_000, 1), COSTS).redis_shards == size(Demand(100_000_000, 1000), COSTS).redis_shards
    few = size(Demand(1000, 1_000_000, hot_share=1), COSTS)
    assert few.redis_shards == pytest.approx(1_000_000 * 30e-6 / BUSY)
    assert size(Demand(1000, 1_000_000, hot_share=1, reads_per_s=1e6), COSTS).redis_shards > few.redis_shards


def test_a_gpu_takes_the_graphs_and_leaves_the_rest_to_cores() -> None:
    found = size(Demand(1000, 100_000, hot_share=1), COSTS)
    assert found.gpus == 4  # 2.03 of them all the time, 60% busy: 3.4
    assert found.gpu_host_cores == pytest.approx(100_000 * 200e-6 * 0.4 / BUSY)
    assert size(Demand(1000, 100_000, "nano"), COSTS).gpus is None


def test_what_breaks_first_depends_on_what_there_is_most_of() -> None:
    assert size(Demand(500_000_000, 1000), COSTS).breaks_first == "Redis's memory"
    assert size(Demand(1_000_000, 1_000_000), COSTS).breaks_first == "Redis's network"
    expensive = replace(COSTS, encode={"small": EncodeCosts(90_000, 90_000, 90_000, 0.1)})
    assert size(Demand(1_000_000, 100_000, hot_share=1), expensive).breaks_first == "encoders' cores"


def test_partitions_are_a_power_of_two_with_two_for_each_worker() -> None:
    assert size(Demand(1000, 10), COSTS).partitions == 16
    assert size(Demand(1000, 60_000), COSTS).partitions == 64  # 30 encoders


@pytest.mark.parametrize(
    "demand",
    [{"users": 0}, {"events_per_s": 0}, {"events_per_user": 0}, {"hot_share": 1.5}, {"reads_per_s": -1}],
)  # fmt: skip
def test_a_demand_that_makes_no_sense_is_refused(demand: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Demand(**{"users": 1000, "events_per_s": 10.0, **demand})  # type: ignore[arg-type]


def test_a_preset_that_nobody_measured_is_refused_with_those_that_are() -> None:
    with pytest.raises(ConfigError, match="small"):
        size(Demand(1000, 10, "paper"), COSTS)


def test_measured_costs_take_the_place_of_ours() -> None:
    figures = {"cpu_us_hot_medium": 800.0, "cpu_us_cold_medium": 900.0, "cpu_us_full_medium": 30_000.0}
    refresh = {
        "bench": "refresh",
        "figures": figures,
        "config": {"presets": ["medium"]},
        "details": {"medium": {"steady": {"share": {"run": 0.8, "write": 0.2}}}},
    }
    costs = with_measured(COSTS, refresh, "r")
    assert costs.encode["medium"] == EncodeCosts(800, 900, 30_000, pytest.approx(0.2))
    assert costs.encode["small"] == COSTS.encode["small"]
    stream = {"bench": "stream", "figures": {"ingest_events_per_cpu_s": 500_000}}
    assert with_measured(COSTS, stream, "s").ingest_us == 2
    scale = {"bench": "scale", "figures": {"redis_us_per_event": 17}}
    assert with_measured(COSTS, scale, "s").redis_write_us == 17


@pytest.mark.parametrize(
    "result",
    [
        {},
        {"bench": "rank", "figures": {}},
        {"bench": "stream", "figures": {}},
        {"bench": "scale", "figures": {"redis_us_per_event": None}},
        {"bench": "refresh", "figures": {}, "config": {"presets": ["small"]}},
    ],
)
def test_a_result_that_has_no_costs_is_named(result: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"^mine\.json: "):
        with_measured(COSTS, result, "mine.json")


@pytest.mark.parametrize(
    ("number", "said"), [(999, "999 B"), (33_000, "33 KB"), (1.54e9, "1.5 GB"), (9.96e12, "10 TB"), (3e15, "3 PB")]
)
def test_bytes_are_told_in_two_digits(number: float, said: str) -> None:
    assert in_bytes(number) == said


def test_every_row_has_a_cell_for_each_demand() -> None:
    table = rows([size(Demand(1000, 10), COSTS), size(Demand(500_000_000, 1e6, "nano"), COSTS)])
    assert {len(row.cells) for row in table} == {2}
    assert all(cell for row in table for cell in row.cells)


def test_the_document_has_what_the_command_prints() -> None:
    found = re.findall(r"^    slipstream (size .*--markdown)$\n\n((?:^\|.*\n)+)", DOCUMENT.read_text(), re.MULTILINE)
    assert len(found) >= 2
    for arguments, table in found:
        printed = CliRunner().invoke(app, arguments.split())
        assert printed.exit_code == 0, printed.output
        assert printed.stdout == table, f"copy into docs/scaling.md:\n{printed.stdout}"


def test_the_command_says_it_for_people_and_for_programs(tmp_path: Path) -> None:
    said = CliRunner().invoke(app, ["size", "--users", "1e8", "--json"])
    assert said.exit_code == 0
    assert "encoder cores" in said.stderr
    (sizing,) = json.loads(said.stdout)
    assert sizing["demand"]["users"] == 100_000_000
    assert sizing["breaks_first"] in sizing["machines"]


def test_a_file_that_is_no_result_is_named(tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    for content in (b"no json", b"[]"):
        bad.write_bytes(content)
        done = CliRunner().invoke(app, ["size", "--measured", str(bad)])
        assert isinstance(done.exception, ConfigError)
        assert str(bad) in str(done.exception)
    gone = CliRunner().invoke(app, ["size", "--measured", str(tmp_path / "gone.json")])
    assert "gone.json" in str(gone.exception)
