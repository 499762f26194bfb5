"""`slipstream evaluate` as a person meets it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.encoder.evaluation.logs import circle_log
from tests.slipstream.conftest import Said
from tests.slipstream.test_cli import _slipstream


@pytest.fixture
def log(tmp_path: Path) -> Path:
    made = circle_log(users=20, events=20)
    rows = zip(made.user_index.tolist(), made.records["item_id"], made.records["timestamp_ms"], strict=True)
    file = tmp_path / "log.csv"
    file.write_text("user_id,item_id,timestamp_ms\n" + "".join(f"u{u},{item},{time}\n" for u, item, time in rows))
    return file


def test_evaluate_says_figures_on_stdout_and_the_rest_on_stderr(tmp_path: Path, log: Path) -> None:
    columns = ("--action", "=view", "--surface", "=home")
    done = _slipstream(
        tmp_path,
        *("evaluate", log.name, *columns, "--preset", "nano", "--train-seconds", "2", "--served-users", "3"),
        *("--freshness", "--freshness-ms", "40", "--plot", "curve.svg", "--json"),
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["bench"] == "evaluate"
    assert {"hr10_time", "ndcg10_time", "counts_hr10_time", "served_minus_offline", "hr10_at_freshness"} <= set(
        said["figures"]
    )
    assert said["details"]["split"]["targets"] == 40
    assert said["config"]["train"]["max_seconds"] == 2
    assert "hr10_time" in done.stderr
    assert "<svg" in (tmp_path / "curve.svg").read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--preset", "huge"], 2, "huge"),
        (["--set", "learning_rat=1"], 2, "learning_rate"),
        (["--plot", "x.svg"], 2, "--freshness"),
        (["--freshness", "--plot", "nowhere/x.svg"], 2, "nowhere"),
        (["--checkpoint", ".", "--seeds", "2"], 2, "--seeds"),
        (["--checkpoint", "."], 4, "no checkpoint"),
    ],
)
def test_what_goes_wrong_is_said(
    typed: Callable[..., Said], log: Path, arguments: list[str], code: int, said: str
) -> None:
    done = typed("evaluate", log.name, "--action", "=view", "--surface", "=home", *arguments)
    assert (done.returncode, said in done.stderr, "Traceback" in done.stderr) == (code, True, False), done.stderr
