"""The file of refreshes: a line for each written state, whole lines only, no users."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from encoder.changelog import Folded
from encoder.engine import Done, Update
from encoder.plan import PlanKind
from encoder.refresh_log import RefreshLog
from schemas.errors import ConfigError
from schemas.state import Fence
from tests.encoder.histories import events

FOLDED = Folded(Update(b"secret-user", events([1]), Fence(bytes(16), 3, 4711), 1010), 1000)
LINE = {"arrived_ms": 1000, "written_ms": 1021, "kind": "append", "events": 1, "partition": 3, "offset": 4711}


def test_a_line_for_each_state_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "not" / "there" / "log"
    with RefreshLog(path) as log:
        log.write(
            [(FOLDED, Done(PlanKind.APPEND, 1, 1021)), (FOLDED, Done(None, 0, 0)), (FOLDED, Done(PlanKind.HIT, 0, 0))]
        )
        assert [json.loads(line) for line in path.read_text().splitlines()] == [LINE], "it is there at once"
        log.write([])
    with RefreshLog(path) as log:  # a second run goes on
        log.write([(FOLDED, Done(PlanKind.APPEND, 1, 1021))] * 2)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [LINE] * 3
    assert "secret-user" not in path.read_text()


def test_no_file_is_fine() -> None:
    with RefreshLog(None) as log:
        log.write([(FOLDED, Done(PlanKind.APPEND, 1, 1021))])


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="refresh log"):
        RefreshLog(tmp_path)
