"""docs/operations.md says of every reason what it means. Run: pytest tests/stream/test_dead_letters_document.py"""

from __future__ import annotations

import re
from pathlib import Path

from schemas.event import MAX_ITEM_BYTES, MAX_MESSAGE_BYTES, MAX_USER_BYTES
from schemas.formats import MAX_DEPTH
from stream.dead_letters import REASONS

DOCUMENT = Path(__file__).parents[2] / "docs" / "operations.md"


def table() -> dict[str, tuple[str, str]]:
    """reason -> what is wrong, what to do."""
    section = DOCUMENT.read_text().split("\n## Dead letters\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \|$", section, re.MULTILINE)
    assert len({reason for reason, _, _ in rows}) == len(rows)
    return {reason: (wrong, remedy) for reason, wrong, remedy in rows}


def test_the_table_has_every_reason_and_no_other() -> None:
    assert table().keys() == REASONS


def test_its_limits_are_those_of_the_code() -> None:
    wrong = {reason: text for reason, (text, _) in table().items()}
    assert f"{MAX_MESSAGE_BYTES // 1024} KiB" in wrong["too_large"]
    assert f"more than {MAX_DEPTH} " in wrong["too_deep"]
    assert f"more than {MAX_USER_BYTES} bytes" in wrong["bad_user_id"]
    assert f"more than {MAX_ITEM_BYTES} bytes" in wrong["bad_item_id"]
