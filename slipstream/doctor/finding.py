"""What a check came to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from schemas.errors import SlipstreamError


class Level(StrEnum):
    OK = "ok"
    #: It works, and will not for long, or not as one would wish.
    WARN = "warn"
    #: Something does not work.
    FAIL = "fail"
    #: Not looked at, because of what another check found.
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Finding:
    """
    Attributes:
        check: what was looked at, in two words.
        found: what is there.
        advice: what to do; empty if nothing, or if `found` says it.
        details: figures for programs.
    """

    check: str
    level: Level
    found: str
    advice: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)


def told(check: str, judged: Callable[[], Finding]) -> Finding:
    """A finding, or the error that kept it from being made: those of ours say what to do."""
    try:
        return judged()
    except SlipstreamError as error:
        return Finding(check, Level.FAIL, str(error))


def skipped(checks: Iterable[str], why: str) -> list[Finding]:
    return [Finding(check, Level.SKIPPED, f"not looked at: {why}") for check in checks]
