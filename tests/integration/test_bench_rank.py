"""`bench rank` on a real Redis: all figures come out of a small run, and none of a run that computed something else."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import redis

from bench import environments
from bench.environments import contender_python
from bench.feast import Feast
from bench.path import Lab
from bench.rank import RankBench, run
from bench.rank_reading import measure_reading
from bench.rank_scoring import Contest, Load
from bench.rank_states import Ranked, write_states
from schemas.errors import ConfigError, MismatchError, PrerequisiteError, SlipstreamError
from schemas.names import Names
from slipstream.stack import Stack

pytestmark = pytest.mark.integration

QUICK = RankBench(("nano",), (Load(1, 128), Load(1, 1000), Load(3, 5)), (1, 50), 0.01, 0.01, contenders=False)


@pytest.fixture
def ranked(redis_url: str, prefix: str, tmp_path: Path) -> Ranked:
    return write_states(redis_url, Names(prefix), tmp_path / "model", "nano", 3)


def key(ranked: Ranked, user: int) -> bytes:
    return ranked.names.state_key(ranked.bundle.model_id, ranked.users[user].encode())


def test_a_small_run_has_all_of_its_figures(stack: Stack, tmp_path: Path) -> None:
    said: list[str] = []
    result = run(QUICK, Lab(stack, tmp_path), tmp_path, said.append).as_json()
    assert result["figures"].pop("feast_vs_read50") is None, "without contenders"
    assert len(result["figures"]) == 5
    assert all(value > 0 for value in result["figures"].values()), result["figures"]
    scoring = result["details"]["scoring"]["nano"]
    assert set(scoring) == {"1x128", "1x1000", "3x5"}
    assert 0 < scoring["1x1000"]["naive"]["candidates_measured"] < 1000, "cut off, and the rest reckoned"
    assert len(said) == len(QUICK.reads) + len(QUICK.loads)


def test_a_state_of_someone_else_gives_no_figure(ranked: Ranked, redis_client: redis.Redis) -> None:
    contest = Contest(ranked, 0.01)
    contest.measure(Load(3, 4), 0.01)
    redis_client.copy(key(ranked, 0), key(ranked, 1), replace=True)
    with pytest.raises(MismatchError, match="3 users x 4 candidates"):
        contest.measure(Load(3, 4), 0.01)


def test_a_read_that_finds_nothing_gives_no_figure(ranked: Ranked, redis_client: redis.Redis) -> None:
    assert measure_reading(ranked, 3, None, 0.01)["states"]["p50"] > 0
    redis_client.delete(key(ranked, 2))
    with pytest.raises(MismatchError, match="1 of 3 rows cannot be used: no state"):
        measure_reading(ranked, 3, None, 0.01)


def test_a_contender_that_cannot_run_says_why(tmp_path: Path) -> None:
    # What Feast needs is not in the tests' environment.
    with pytest.raises(SlipstreamError, match=r"exit code 1(.|\n)*No module named"):
        Feast(Path(sys.executable), "127.0.0.1:1", tmp_path, 1, 8)


def test_a_contender_that_cannot_be_installed_can_be_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(environments, "CONTENDERS", tmp_path)
    (tmp_path / "odd.txt").write_text("-r nowhere.txt\n")
    with pytest.raises(PrerequisiteError, match=r"odd cannot be installed(.|\n)*bench rank --no-contenders"):
        contender_python("odd", "rank", tmp_path / "made", print)


def test_no_model_is_no_benchmark() -> None:
    with pytest.raises(ConfigError, match="presets"):
        RankBench(())
