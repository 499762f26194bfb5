from __future__ import annotations

from pathlib import Path

import numpy as np

from slipstream.demo.report import LagSample, ReportData, write_report


def _data(n: int) -> ReportData:
    rng = np.random.default_rng(0)
    return ReportData(
        summary={"events_sent": n, "freshness_ms": {"p50": 12.5, "p99": 40.0}, "note": "<b>"},
        seconds=np.sort(rng.random(n) * 20),
        freshness_ms=rng.integers(5, 80, n),
        lags=[LagSample(i / 2, {"ingest": i, "encode": 1}) for i in range(min(n, 5))],
        live_hits=rng.random(n) < 0.2,
        frozen_hits=rng.random(n) < 0.1,
        protocol="how it was measured & why",
        marks=[(3.0, "kill -9 encode")] if n else [],
    )


def test_the_report_is_one_file_with_its_plots(tmp_path: Path) -> None:
    path = tmp_path / "a" / "report.html"
    write_report(path, _data(500))
    page = path.read_text()
    assert page.count("<svg") == page.count("</svg>") == 4
    assert "kill -9 encode" in page
    assert "how it was measured &amp; why" in page
    assert "&lt;b&gt;" in page
    assert "12.5" in page


def test_a_run_without_a_refresh_still_has_a_report(tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", _data(0))
    assert (tmp_path / "report.html").read_text().count("<svg") == 4
