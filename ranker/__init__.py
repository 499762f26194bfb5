"""The ranker's side: read user states, cross candidates with them, rank.

from encoder.bundle import load_bundle
from ranker import Dcat, Request, StateReader

bundle = load_bundle("model")
reader, dcat = StateReader("redis://localhost:6379", bundle), Dcat.of(bundle)
rows = reader.read(["u-17", "u-42"], max_age_ms=60_000)
scores = dcat.score([Request(row, candidates) for row in rows])
"""

from ranker.async_reader import AsyncStateReader
from ranker.breaker import Breaker
from ranker.cache import StateCache
from ranker.dcat import Dcat, Request, Scores
from ranker.metrics import ReaderMetrics
from ranker.rank import Catalogue, RankedItem, Ranking, rank_given, rank_row, rank_user, retrieve, retrieve_popular
from ranker.reader import StateReader
from ranker.rows import Row, Status

__all__ = [
    "AsyncStateReader",
    "Breaker",
    "Catalogue",
    "Dcat",
    "RankedItem",
    "Ranking",
    "ReaderMetrics",
    "Request",
    "Row",
    "Scores",
    "StateCache",
    "StateReader",
    "Status",
    "rank_given",
    "rank_row",
    "rank_user",
    "retrieve",
    "retrieve_popular",
]
