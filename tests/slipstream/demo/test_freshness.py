from __future__ import annotations

from pathlib import Path

import numpy as np

from slipstream.demo.freshness import RefreshLog, percentiles


def _line(arrived_ms: int, written_ms: int, kind: str = "append") -> bytes:
    return b'{"arrived_ms":%d,"written_ms":%d,"kind":"%s","events":1,"partition":0,"offset":0}\n' % (
        arrived_ms,
        written_ms,
        kind.encode(),
    )


def test_reads_each_line_once_while_the_file_grows(tmp_path: Path) -> None:
    path = tmp_path / "refreshes.jsonl"
    log = RefreshLog(path, since_ms=100)
    log.poll()  # not there yet
    half = _line(120, 150)
    path.write_bytes(_line(99, 500) + _line(100, 110) + half[:20])
    log.poll()
    assert log.freshness_ms.tolist() == [10]
    with path.open("ab") as file:
        file.write(half[20:] + _line(130, 170, "full"))
    log.poll()
    log.poll()
    log.close()
    assert log.freshness_ms.tolist() == [10, 30, 40]
    assert log.kinds == {"append": 2, "full": 1}
    assert log.recent_freshness_ms(1).tolist() == [40]


def test_a_line_cut_by_a_kill_does_not_stop_the_reading(tmp_path: Path) -> None:
    path = tmp_path / "refreshes.jsonl"
    path.write_bytes(_line(1, 2)[:30] + b"\n" + _line(5, 8))
    log = RefreshLog(path, since_ms=0)
    log.poll()
    log.close()
    assert log.freshness_ms.tolist() == [3]


def test_percentiles() -> None:
    assert percentiles(np.arange(101)) == {"p50": 50, "p90": 90, "p99": 99, "max": 100}
    assert percentiles(np.empty(0, np.int64)) == {}
