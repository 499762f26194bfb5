"""Sizes as a table: a row for each thing that a deployment needs, a column for each demand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from slipstream.sizing import Sizing

_UNITS = ((1e15, "PB"), (1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "KB"))
_THOUSANDS = ((1e6, "M"), (1e3, "k"))


class Row(NamedTuple):
    what: str
    cells: tuple[str, ...]


_ROWS: tuple[tuple[str, Callable[[Sizing], str]], ...] = (
    ("a state in Redis", lambda s: in_bytes(s.state_bytes)),
    ("states in Redis, one copy", lambda s: in_bytes(s.redis_bytes)),
    ("Redis shards of one core", lambda s: _count(s.redis_shards)),
    ("to and from Redis", lambda s: f"{in_bytes(s.redis_bytes_per_s)}/s"),
    ("encoder cores", lambda s: _count(s.encoder_cores)),
    ("or H100 GPUs, and cores beside them", lambda s: _gpus(s)),
    ("ingest cores", lambda s: _count(s.ingest_cores)),
    ("sequence cores", lambda s: _count(s.sequence_cores)),
    ("sequence tables in memory", lambda s: in_bytes(s.sequence_table_bytes)),
    ("partitions", lambda s: _count(s.partitions)),
    ("written to Kafka, three replicas", lambda s: f"{in_bytes(s.kafka_bytes_per_s)}/s"),
    ("changelog kept, three replicas", lambda s: in_bytes(s.changelog_bytes)),
    ("brokers, for what is written", lambda s: _count(s.brokers)),
    ("a new model for every user, core-hours", lambda s: _count(s.backfill_core_hours)),
    ("most machines go to", lambda s: f"{s.breaks_first}: {_count(s.machines[s.breaks_first])}"),
)


def header(sizings: Sequence[Sizing]) -> Row:
    return Row("", tuple(f"{_short(s.demand.users)} users, {_short(s.demand.events_per_s)} events/s" for s in sizings))


def rows(sizings: Sequence[Sizing]) -> list[Row]:
    return [Row(what, tuple(cell(sizing) for sizing in sizings)) for what, cell in _ROWS]


def markdown(sizings: Sequence[Sizing]) -> str:
    """As docs/scaling.md has it."""
    head, *body = header(sizings), *rows(sizings)
    lines = [head, Row("---", ("---",) * len(sizings)), *body]
    return "\n".join(f"| {' | '.join((line.what, *line.cells))} |" for line in lines)


def in_bytes(number: float) -> str:
    """Two digits and a decimal unit: more would say more than a size on paper knows."""
    for unit, name in _UNITS:
        if number >= unit:
            return f"{_two_digits(number / unit)} {name}"
    return f"{number:.0f} B"


def _short(number: float) -> str:
    for unit, name in _THOUSANDS:
        if number >= unit:
            return f"{_two_digits(number / unit)}{name}"
    return f"{number:.0f}"


def _gpus(sizing: Sizing) -> str:
    if sizing.gpus is None or sizing.gpu_host_cores is None:
        return "not measured"
    return f"{sizing.gpus:,}, {_count(sizing.gpu_host_cores)}"


def _count(number: float) -> str:
    """Of whole things: rounded up, to two digits where there are many."""
    whole = math.ceil(number)
    return f"{whole:,}" if whole < 100 or isinstance(number, int) else _two_digits(number)


def _two_digits(number: float) -> str:
    return f"{float(f'{number:.2g}'):,.{1 if number < 9.95 else 0}f}".removesuffix(".0")
