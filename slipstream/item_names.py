"""String ids of items for people: states, and what rankers score, hold their hashes alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from schemas.errors import ConfigError
from schemas.event import hash_item_id
from stream.columns import ItemIds
from stream.values import BadValueError, read_item


def read_item_names(file: Path | None) -> Mapping[int, str]:
    """Item id -> string id, of a text file with a string id on each line; nothing without a file.

    Raises:
        ConfigError: it cannot be read.
    """
    if file is None:
        return {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"item_names: {file}: cannot be read as UTF-8 text, an item id a line ({error})") from None
    return {hash_item_id(name): name for name in lines if name}


def given_item(text: str, item_ids: ItemIds) -> int:
    """The id of an item that a person names: a number, or a string id.

    Raises:
        ConfigError: it is neither.
    """
    try:
        return read_item(text, item_ids)
    except BadValueError as error:
        raise ConfigError(f"--item: {error}") from None
