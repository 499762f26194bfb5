"""docs/operations.md tells each exit code and each check of the doctor."""

from __future__ import annotations

import re
from pathlib import Path

from schemas.errors import SlipstreamError
from slipstream.cli.context import EXIT_INTERRUPTED
from slipstream.cli.doctor import EXIT_UNWELL
from slipstream.cli.states import EXIT_NO_STATE
from slipstream.doctor import kafka, model, redis, runtime

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def codes(error: type[SlipstreamError]) -> set[int]:
    return {error.exit_code}.union(*map(codes, error.__subclasses__()))


def test_each_exit_code_is_told() -> None:
    told = [int(code) for code in re.findall(r"^\| (\d+) \|", section("Exit codes"), re.MULTILINE)]
    assert told == sorted(codes(SlipstreamError) | {0, EXIT_NO_STATE, EXIT_UNWELL, EXIT_INTERRUPTED})


def test_each_check_of_the_doctor_is_told() -> None:
    told = re.findall(r"^\| (?:`\w+`)? ?\| (`[^|]+`) \|", section("Doctor"), re.MULTILINE)
    checks = [*runtime.CHECKS, *model.CHECKS, *kafka.CHECKS, *redis.CHECKS]
    assert told == [*(f"`{check}`" for check in checks), "`data_dir`, `sequence_dir`, `cache_dir`"]
