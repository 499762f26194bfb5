"""Titles of items, from a file of the reader's own: CSV or TSV with the columns `item_id` and `title`."""

from __future__ import annotations

import csv
from pathlib import Path

from schemas.errors import ConfigError, LogError
from schemas.event import MAX_ITEM_ID, hash_item_id

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
MAX_TITLE_CHARS = 200


def read_titles(path: Path) -> dict[int, str]:
    """Item id, as states have it -> title.

    A string id is hashed as ingest does. One of digits alone may have been sent as a number or as a string: it is both.

    Raises:
        ConfigError: the suffix says neither CSV nor TSV.
        LogError: the file cannot be read, or lacks a column; the message says where.
    """
    delimiter = _DELIMITERS.get(path.suffix.lower())
    if delimiter is None:
        raise ConfigError(f"--titles {path}: name a .csv or .tsv file with the columns item_id and title")
    titles: dict[int, str] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, delimiter=delimiter)
            if missing := {"item_id", "title"} - set(rows.fieldnames or ()):
                raise LogError(f"{path}: its first line names no column {' and no column '.join(sorted(missing))}")
            for row in rows:
                item_id, title = row["item_id"], row["title"]
                if not item_id or title is None:
                    raise LogError(f"{path}, line {rows.line_num}: an item_id and a title are expected")
                titles[hash_item_id(item_id)] = title[:MAX_TITLE_CHARS]
                if item_id.isascii() and item_id.isdigit() and int(item_id) <= MAX_ITEM_ID:
                    titles[int(item_id)] = title[:MAX_TITLE_CHARS]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise LogError(f"{path}: cannot be read as CSV or TSV in UTF-8: {why}") from None
    return titles
