"""Reading states: embeddings alone, and whole states verified and laid out for the graph, beside Feast on the same Redis."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from bench.feast import Feast
from bench.rank_states import Ranked
from bench.rounds import Way, in_turns, percentiles, way
from encoder.past import gather_past, parts_of
from ranker.reader import StateReader
from schemas.errors import MismatchError


def measure_reading(ranked: Ranked, users: int, feast: Feast | None, seconds: float) -> dict[str, Any]:
    """One read of `users` states, in milliseconds, by what is read.

    Raises:
        MismatchError: a row is not usable: a figure of a read that found nothing is worth nothing.
    """
    reader = StateReader(ranked.redis_url, ranked.bundle, ranked.names, deadline_ms=60_000)
    layout, asked = ranked.bundle.layout, ranked.users[:users]

    def states() -> None:
        parts = [parts_of(row.state.slots) for row in reader.read(asked) if row.state is not None]
        gather_past(parts, layout.shape.context, layout)

    for embedding_only in (True, False):
        unusable = [row for row in reader.read(asked, embedding_only=embedding_only) if not row.usable]
        if unusable:
            raise MismatchError(f"{len(unusable)} of {users} rows cannot be used: {unusable[0].why}")
    ways: Mapping[str, Way] = {
        "embeddings": way(lambda: reader.read(asked, max_age_ms=60_000, embedding_only=True)),
        "states": way(states),
        **({} if feast is None else {"feast": partial(feast.read, users)}),
    }
    found: dict[str, Any] = {name: percentiles(ms) for name, ms in in_turns(ways, seconds).items()}
    if feast is not None:
        found["feast_vs_embeddings"] = found["feast"]["p50"] / found["embeddings"]["p50"]
    return found
