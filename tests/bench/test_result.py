from __future__ import annotations

import json

from bench.result import Result


def test_the_object_has_the_parts_that_programs_read() -> None:
    said = Result("stream", {"ratio": 1.23456, "events": 1_000_000, "rate": 123456.7, "missing": None}, {"seed": 1})
    printed = json.loads(json.dumps(said.as_json()))
    assert printed["bench"] == "stream"
    assert printed["figures"] == {"ratio": 1.235, "events": 1_000_000, "rate": 123500, "missing": None}
    assert printed["config"] == {"seed": 1}
    assert printed["machine"]["cores"] >= 1
