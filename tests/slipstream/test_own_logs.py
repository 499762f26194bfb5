"""What makes a log of one's own pleasant: column names said once, and string ids in what people type and read."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import ConfigError
from schemas.event import hash_item_id
from slipstream.item_names import given_item, read_item_names
from slipstream.log_columns import column_mapping
from stream.columns import ColumnMapping

NOTHING = dict.fromkeys(("user", "item", "action", "surface", "timestamp", "timestamp_unit", "item_ids"))


def test_an_option_goes_before_the_setting_and_that_before_the_default() -> None:
    assert column_mapping({}, NOTHING, {}) == ColumnMapping()
    setting = {"user": "uid", "action": "=view", "timestamp": "at", "timestamp_unit": "s"}
    assert column_mapping(setting, NOTHING, {}) == ColumnMapping(
        user="uid", action=None, action_constant="view", timestamp="at", timestamp_unit="s"
    )
    options = {**NOTHING, "action": "what", "timestamp_unit": "iso"}
    assert column_mapping(setting, options, {"5": "save"}) == ColumnMapping(
        user="uid", action="what", timestamp="at", timestamp_unit="iso", action_values={"5": "save"}
    )


def test_hashes_are_shown_as_the_ids_that_they_are_of(tmp_path: Path) -> None:
    (tmp_path / "items.txt").write_text("pin-9\n\nnaïve pin\n")
    assert read_item_names(tmp_path / "items.txt") == {hash_item_id(name): name for name in ("pin-9", "naïve pin")}
    assert read_item_names(None) == {}
    (tmp_path / "items.txt").write_bytes(b"\xff\n")
    for wrong in ("items.txt", "nowhere.txt"):
        with pytest.raises(ConfigError, match=f"item_names: .*{wrong}"):
            read_item_names(tmp_path / wrong)


def test_an_item_can_be_named_by_its_string_id() -> None:
    assert given_item("17", "auto") == 17
    assert given_item("17", "string") == hash_item_id("17")
    assert given_item("pin-9", "auto") == hash_item_id("pin-9")
    for wrong in ("-1", str(1 << 63), ""):
        with pytest.raises(ConfigError, match="--item: "):
            given_item(wrong, "auto")
