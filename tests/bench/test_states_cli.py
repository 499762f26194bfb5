"""What `slipstream bench refresh`, `e2e` and `scale` refuse, before anything is started."""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from typer.testing import CliRunner

import stream.movielens
from schemas.errors import SlipstreamError
from slipstream.cli.app import app
from slipstream.cli.bench_states import _log_or_none
from slipstream.cli.context import Context


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["e2e", "--preset", "huge"], 2, "huge"),
        (["e2e", "--no-load", "--plot", "x.svg"], 2, "--no-load"),
        (["e2e", "--plot", "/dev/null/x.svg"], 2, "/dev/null/x.svg"),
        (["refresh", "--preset", "huge"], 2, "huge"),
        (["refresh", "--log", "nothing.csv"], 4, "nothing.csv"),
        (["refresh", "--log", "nothing.doc"], 2, "nothing.doc"),
        (["scale", "--preset", "huge"], 2, "huge"),
        (["scale", "--plot", "/dev/null/x.svg"], 2, "/dev/null/x.svg"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(arguments: list[str], code: int, said: str) -> None:
    error = CliRunner().invoke(app, ["bench", *arguments]).exception
    assert isinstance(error, SlipstreamError)
    assert (error.exit_code, said in str(error)) == (code, True), str(error)


def test_without_movielens_its_mix_is_left_out_and_said_to_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def missing(name: str) -> ModuleSpec | None:
        return None

    monkeypatch.setattr(stream.movielens, "find_spec", missing)
    monkeypatch.chdir(tmp_path)
    ctx = Context()
    assert _log_or_none(ctx, None) is None
    assert "left out" in (said := capsys.readouterr().err)
    assert "slipstream-embeddings[movielens]" in said
    with pytest.raises(SlipstreamError, match="movielens"):
        _log_or_none(ctx, "ml-1m")
