"""May a table that was kept on disk be gone on with? Pure: what it is of and what the changelog is in, the reason not to out."""

from __future__ import annotations

from typing import NamedTuple

from schemas.sequence_store import Kept

#: Of the changelog's `delete.retention.ms`: what of it is left is for reading the rest, and for clocks that differ.
_SAFE_SHARE = 0.5
_CLOCKS_DIFFER_MS = 60_000


class ChangelogState(NamedTuple):
    """One partition of the changelog, as it is now.

    Attributes:
        topic_id: 16 bytes.
        start: its oldest record's offset.
        end: the next record's offset; only this worker can move it.
        delete_retention_ms: for so long a tombstone can be read at least; None = not known.
        now_ms: when this was asked.
    """

    topic_id: bytes
    partition: int
    start: int
    end: int
    delete_retention_ms: int | None
    now_ms: int


def why_unusable(kept: Kept, changelog: ChangelogState) -> str | None:
    """The reason to make a table anew, None if reading the changelog from the kept offset on makes it whole."""
    if kept.topic_id != changelog.topic_id:
        return "the changelog's topic was deleted and made anew since"
    if kept.partition != changelog.partition:
        return f"it is of partition {kept.partition}, not {changelog.partition}"
    if kept.next_offset > changelog.end:
        return f"it was made from records up to offset {kept.next_offset}, but the changelog ends at {changelog.end}"
    if kept.next_offset < changelog.start:
        return f"it goes on at offset {kept.next_offset}, but the changelog begins at {changelog.start}"
    if kept.next_offset == changelog.end:
        return None  # nothing was written since
    if changelog.delete_retention_ms is None:
        return "the changelog's delete.retention.ms cannot be read (the right DescribeConfigs on the topic is missing)"
    age_ms = changelog.now_ms - kept.as_of_ms
    if age_ms < -_CLOCKS_DIFFER_MS:
        return f"it was last whole {-age_ms / 1000:.0f} s in the future: a clock was wrong"
    limit_ms = int(changelog.delete_retention_ms * _SAFE_SHARE)
    if age_ms > limit_ms:
        return (
            f"it was last whole {age_ms / 1000:.0f} s ago, and tombstones of longer than {limit_ms / 1000:.0f} s ago may be "
            "gone from the changelog"
        )
    return None
