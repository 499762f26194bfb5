from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from slipstream.processes import StageDiedError, Stages


def _until_it_ends(stages: Stages) -> None:
    for _ in range(600):
        stages.check()
        time.sleep(0.05)
    raise AssertionError("the stage did not end")


def test_a_stage_that_ends_is_an_error_with_its_code_and_the_end_of_its_log(tmp_path: Path) -> None:
    with Stages(["--data-dir", str(tmp_path)], tmp_path / "logs") as stages:
        stages.start("broken", "no-such-command")
        with pytest.raises(StageDiedError, match=r"exit code 2(.|\n)*no-such-command"):
            _until_it_ends(stages)


def test_leaving_stops_the_stages_and_a_killed_one_can_start_again(tmp_path: Path) -> None:
    with Stages([], tmp_path, {"PYTHONSTARTUP": ""}) as stages:
        stages._commands["wait"] = ()
        pid = stages.start("wait", "status", "--json")
        stages.kill("wait")
        assert not psutil.pid_exists(pid)
        pid = stages.restart("wait")
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
