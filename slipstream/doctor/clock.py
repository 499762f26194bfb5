"""Whether another machine's clock is this one's. Ages and freshness are differences between the two."""

from __future__ import annotations

from typing import NamedTuple

from slipstream.doctor.finding import Finding, Level

WARN_MS, FAIL_MS = 500, 5000


class ClockFacts(NamedTuple):
    """
    Attributes:
        ahead_ms: how far the other clock is ahead of this machine's; below 0: behind.
        error_ms: by how much that may be wrong.
        at_least: it may be further ahead, and no answer tells whether it is behind.
    """

    ahead_ms: int
    error_ms: int
    at_least: bool = False


def judge_clock(check: str, whose: str, facts: ClockFacts | None) -> Finding:
    """
    Args:
        facts: None if nothing there told the time.
    """
    if facts is None:
        return Finding(check, Level.OK, f"{whose} has no record that tells its time yet")
    surely_ms = max(0, abs(facts.ahead_ms) - facts.error_ms)
    details = facts._asdict()
    if facts.at_least and facts.ahead_ms <= facts.error_ms:
        return Finding(check, Level.OK, f"no record of {whose} comes from the future", details=details)
    at_least = "at least " if facts.at_least else ""
    place = f"{at_least}{abs(facts.ahead_ms):,} ms {'ahead of' if facts.ahead_ms >= 0 else 'behind'} this machine's"
    found = f"the clock of {whose} is {place} (within {facts.error_ms} ms)"
    if surely_ms < WARN_MS:
        return Finding(check, Level.OK, found, details=details)
    advice = "let NTP (chrony, systemd-timesyncd) set both clocks: the ages of states are differences between them"
    return Finding(check, Level.FAIL if surely_ms >= FAIL_MS else Level.WARN, found, advice, details)
