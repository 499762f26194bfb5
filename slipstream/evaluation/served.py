"""Served equals offline: the same targets ranked by states made as they are served.

Each event of some users goes, alone, as JSON through ingest, sequence and encode (slipstream.simulate): ONNX graphs, int8 slots,
fp16 tables, the window that the plan anchors. Before an event that is a target, the user embedding is read from the stored state
and ranks the items by the bundle's own catalogue vectors.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoder.bundle import Bundle, load_bundle
from encoder.checkpoint import Checkpoint
from encoder.evaluation.metrics import interval
from encoder.evaluation.protocol import Split
from encoder.evaluation.ranking import Ranks, Rows, rank_all
from encoder.export import Catalogue, export_weights
from encoder.store_memory import MemoryStateStore
from schemas.errors import LogError
from schemas.log import EventLog
from schemas.sequence import DEFAULT_CAPACITY
from schemas.state import decode_header
from slipstream.simulate import SimulateConfig, Simulation, messages


@dataclass(frozen=True)
class Served:
    """
    Attributes:
        rows: `(n,)` i64, the targets that were ranked.
        ranks: by served states.
        offline: the same targets by the model in full precision.
    """

    users: int
    rows: Rows
    ranks: Ranks
    offline: Ranks

    @property
    def hr10(self) -> float:
        return float((self.ranks.unseen < 10).mean())

    @property
    def offline_hr10(self) -> float:
        return float((self.offline.unseen < 10).mean())

    @property
    def minus_offline(self) -> float:
        """HR@10 as served, minus HR@10 offline."""
        return self.hr10 - self.offline_hr10

    def interval(self, users: Rows, seed: int) -> tuple[float, float]:
        """Of `minus_offline`, over users `(n,)` of the targets."""
        difference = (self.ranks.unseen < 10).astype(np.float64) - (self.offline.unseen < 10)
        low, high = interval(difference[:, None], users, seed)
        return float(low[0]), float(high[0])

    @property
    def same_rank(self) -> float:
        """Share of the targets that have the same rank both ways."""
        return float((self.ranks.unseen == self.offline.unseen).mean())


def serve(split: Split, log: EventLog, checkpoint: Checkpoint, offline: Ranks, users: int, seed: int) -> Served:
    """Rank the targets of a random sample of users by served states.

    Args:
        log: the whole log, of which `split` is made.
        offline: ranks of all targets of the split.
        users: how many; those with targets are drawn from.

    Raises:
        LogError: ingest would refuse an event of the log.
    """
    with_targets = np.unique(split.targets.user)
    chosen = np.random.default_rng(seed).choice(with_targets, min(users, len(with_targets)), replace=False)
    rows = np.flatnonzero(np.isin(split.targets.user, chosen))
    targets = split.targets.take(rows)
    with tempfile.TemporaryDirectory(prefix="slipstream-evaluate-") as directory:
        bundle = _bundle(checkpoint, split, Path(directory) / "bundle")
        embeddings = _embeddings(split, log, bundle, np.sort(chosen), rows)
        vectors = bundle.catalogue_vectors.astype(np.float32)
    ranks = rank_all(split.data, targets, {"served": lambda some: embeddings[some] @ vectors.T}, seed)["served"]
    return Served(len(chosen), rows, ranks, Ranks(offline.unseen[rows], offline.all[rows]))


def _bundle(checkpoint: Checkpoint, split: Split, directory: Path) -> Bundle:
    """The checkpoint as it is exported, its catalogue being all items of the log: new ones need no training to be ranked."""
    notes = checkpoint.notes
    export_weights(
        checkpoint.weights,
        directory,
        shape=notes.shape,
        vocabulary=notes.vocabulary,
        item_seeds=notes.item_seeds,
        catalogue=Catalogue(split.data.item_ids, split.item_counts),
    )
    return load_bundle(directory)


def _embeddings(split: Split, log: EventLog, bundle: Bundle, users: Rows, rows: Rows) -> NDArray[np.float32]:
    """The user embedding in the stored state just before each target, `(n, d)`.

    Every user's first event arrives, then every user's second, and so on: each event refreshes its user's state by itself.
    """
    data, targets = split.data, split.targets
    store = MemoryStateStore(bundle.layout)
    capacity = max(DEFAULT_CAPACITY, bundle.shape.context)
    simulation = Simulation(bundle, store, SimulateConfig(capacity=capacity))
    last = np.full(len(data.starts) - 1, -1)
    np.maximum.at(last, targets.user[rows], targets.event[rows])
    place_of = {event: place for place, event in enumerate(targets.event[rows].tolist())}
    embeddings = np.zeros((len(rows), bundle.shape.d_model), np.float32)
    names = {user: log.users[log.user_index[data.arrival[data.starts[user]]]].encode() for user in users.tolist()}
    for step in range(int((last[users] - data.starts[users]).max()) + 1):
        users = users[data.starts[users] + step <= last[users]]
        events = data.starts[users] + step
        for user, event in zip(users.tolist(), events.tolist(), strict=True):
            place = place_of.get(event)
            if place is not None:
                embeddings[place] = decode_header(store.values[names[user]], bundle.layout).embedding
        arrival = data.arrival[events]
        chunk = EventLog(log.users, log.user_index[arrival], log.records[arrival], log.vocabulary)
        fed = simulation.feed(messages(chunk), int(chunk.records["timestamp_ms"].max()))
        if fed.rejected:
            raise LogError(f"ingest would refuse an event of the log: {fed.rejected[0]}")
    return embeddings
