"""An event log as ranking requests: each event's item is a candidate, its action the label, its state what came before it.

A log of engagements has no items that were shown and passed over, so each request also has sampled candidates, of which nothing
is wanted: half drawn uniformly from the items that are known before T, half as often as they occur, none that the user ever
engaged with. Popularity and age of a candidate are those of the moment of its request; popularity stands still after T.

Letters: B windows, T events of a window, P requests of a window, C candidates of a request (the event's own first), n items that
a batch looks up, m items of the log, J tasks, k width of a content embedding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from encoder.evaluation.protocol import Split
from encoder.evaluation.ranking import ragged
from encoder.evaluation.states import window_start
from encoder.features import item_rows
from encoder.finetune import first_seen_ms, item_ages_ms, randomise
from encoder.windows import cut, training_spans
from ranker.head.batch import Batch
from ranker.head.config import RankerConfig
from ranker.head.context import context_features
from ranker.head.places import Ints, places_in
from schemas.bundle import ModelShape
from schemas.errors import LogError
from schemas.vocabulary import Vocabulary

#: A sampled item that the user knows is drawn again, this often at most.
_REDRAWS = 30
#: Windows of a batch that is measured hold so many tokens, and candidates, at most.
_EVAL_TOKENS, _EVAL_CANDIDATES = 8192, 8192
#: `cut` also tells targets, which are not asked for.
_NO_TARGETS = np.ones(1, bool)


class Requests:
    """Makes batches of one split's requests, to train on and to measure."""

    def __init__(
        self,
        split: Split,
        tasks: Sequence[int],
        vocabulary: Vocabulary,
        shape: ModelShape,
        item_seeds: tuple[int, ...],
        content: NDArray[np.float32] | None = None,
    ) -> None:
        """
        Args:
            tasks: J action codes.
            vocabulary, shape, item_seeds: of the PinFM. Codes that it does not know count as code 0.
            content: `(m, k)`, zeros where there is none.

        Raises:
            LogError: nothing may be trained on.
        """
        self._split, self._data, self._shape, self._content = split, split.data, shape, content
        self._tasks = np.array(tasks)
        self._codes = len(vocabulary.actions), len(vocabulary.surfaces)
        self._rows = item_rows(split.data.item_ids, item_seeds, shape.rows)  # (8, m)
        self._owners = split.data.owners
        trained_items, times = split.data.items[split.trained], split.data.timestamps_ms[split.trained]
        #: `(known,)` items that may be trained on.
        self.known = np.flatnonzero(split.item_counts)
        if len(self.known) < 2:
            raise LogError("the log has no two items before T: there is nothing to rank")
        self._popular = trained_items
        self._first_seen_ms = first_seen_ms(trained_items, times, len(split.data.item_ids))
        self._times = np.sort(times)
        self._item_times = np.sort(self._item_time(trained_items, times))
        self._engaged = np.unique(self._owners * len(split.data.item_ids) + split.data.items)

    # ---- what is measured and what is trained on

    def training(self, config: RankerConfig) -> Iterator[Batch]:
        """Batches for ever. Of each window some random events are requests."""
        rng, chance = np.random.default_rng(config.seed), torch.Generator().manual_seed(config.seed)
        ends = self._data.starts[:-1] + self._split.train_counts
        for spans in training_spans(self._data, self._shape.context, config.batch_tokens, rng, ends):
            lengths = spans[:, 1] - spans[:, 0]
            order = rng.random((len(spans), int(lengths.max())))  # (B, T)
            order[np.arange(order.shape[1]) >= lengths[:, None]] = np.inf
            # A window's first event is a request only where nothing at all is before it: of a user without a state.
            order[~np.isin(spans[:, 0], self._data.starts), 0] = np.inf
            positions = np.argsort(order, axis=1)[:, : config.positions]
            real = np.isfinite(np.take_along_axis(order, positions, axis=1))  # (B, P)
            sampled = self.sample(np.repeat(self._owners[spans[:, 0]], real.shape[1]), config.sampled, rng)
            sampled = sampled.reshape(*real.shape, -1)
            yield self._make(spans, np.where(real, positions, 0), real, sampled, config.random_candidates, chance)

    def measured(self, events: Ints, sampled: Ints) -> Iterator[tuple[Ints, Batch]]:
        """Batches that hold each of the requests once, through the windows that are served.

        Args:
            events: `(r,)` places of their events among the events of the histories, ascending.
            sampled: `(r, C - 1)` their sampled candidates.

        Yields:
            Which request stands at each place of the batch `(B, P)`, -1: none; and the batch.
        """
        start = self._data.starts[self._owners[events]]
        begin = start + window_start(events - start, self._shape)
        most = max(1, _EVAL_CANDIDATES // (sampled.shape[1] + 1))
        # Requests of one window side by side, `most` of them in a line at most.
        _, counts = np.unique(begin, return_counts=True)
        _, place = ragged(counts)
        line = np.unique(np.stack([begin, place // most]), axis=1, return_inverse=True)[1].ravel()
        ends, sizes = np.zeros(int(line.max()) + 1, np.int64), np.bincount(line)
        np.maximum.at(ends, line, events + 1)
        begins = np.zeros_like(ends)
        begins[line] = begin
        first = np.cumsum(sizes) - sizes
        order = np.lexsort((sizes, ends - begins))
        at = 0
        while at < len(order):
            width = np.maximum.accumulate(sizes[order[at:]]) * np.arange(1, len(order) - at + 1)
            tokens = (ends - begins)[order[at:]] * np.arange(1, len(order) - at + 1)
            fitting = np.count_nonzero((width <= most) & (tokens <= _EVAL_TOKENS))
            chosen = order[at : at + max(1, int(fitting))]
            at += len(chosen)
            steps = np.arange(sizes[chosen].max())
            real = steps < sizes[chosen][:, None]
            request = np.where(real, first[chosen][:, None] + steps, -1)
            spans = np.stack([begins[chosen], ends[chosen]], axis=1)
            positions = np.where(real, events[request] - spans[:, :1], 0)
            yield request, self._make(spans, positions, real, sampled[request], 0.0, None)

    def sample(self, users: Ints, count: int, rng: np.random.Generator, pool: Ints | None = None) -> Ints:
        """Items that the users never engaged with. `(r,)` -> `(r, count)`.

        Args:
            pool: drawn uniformly from these alone.
        """
        shape = (len(users), count)
        drawn, owner = np.empty(shape, np.int64), np.broadcast_to(users[:, None], shape)
        again = np.ones(shape, bool)
        for _ in range(_REDRAWS):
            size = int(again.sum())
            if not size:
                break
            items = rng.choice(self.known if pool is None else pool, size)
            if pool is None:
                items = np.where(rng.random(size) < 0.5, items, rng.choice(self._popular, size))
            drawn[again] = items
            _, again = places_in(self._engaged, owner * len(self._data.item_ids) + drawn)
        return drawn

    def _make(
        self,
        spans: Ints,
        positions: Ints,
        real: NDArray[np.bool_],
        sampled: Ints,
        random_share: float,
        chance: torch.Generator | None,
    ) -> Batch:
        """
        Args:
            spans: `(B, 2)`, [start, end) of the windows among the events.
            positions: `(B, P)` places of the requests' events in their windows.
            real: `(B, P)`.
            sampled: `(B, P, C - 1)`.
        """
        data = self._data
        window = cut(data, spans, _NO_TARGETS)
        events = spans[:, :1] + positions  # (B, P)
        candidates = np.concatenate([data.items[events][..., None], sampled], axis=-1)  # (B, P, C)
        now_ms = data.timestamps_ms[events][..., None]
        ages_ms = item_ages_ms(self._first_seen_ms, candidates, np.broadcast_to(now_ms, candidates.shape))
        features = context_features(self._popularity(candidates, now_ms), ages_ms, now_ms, positions[..., None])
        labels = np.zeros((*candidates.shape, len(self._tasks)), np.float32)
        labels[..., 0, :] = data.actions[events][..., None] == self._tasks
        shown = candidates
        if random_share:
            places = torch.from_numpy(np.searchsorted(self.known, candidates))
            shown = self.known[randomise(places, len(self.known), random_share, chance).numpy()]
        used, place = np.unique(np.concatenate([window.items.ravel(), shown.ravel()]), return_inverse=True)
        actions, surfaces = (
            np.where(codes < count, codes, 0)
            for codes, count in zip((window.actions, window.surfaces), self._codes, strict=True)
        )
        columns = (
            self._rows[:, used],
            place[: window.items.size].reshape(window.items.shape),
            actions,
            surfaces,
            window.gaps,
            positions,
            place[window.items.size :].reshape(shown.shape),
            np.empty((*candidates.shape, 0), np.float32) if self._content is None else self._content[candidates],
            ages_ms,
            features,
            labels,
            real,
        )
        return Batch(*(torch.from_numpy(np.ascontiguousarray(column)) for column in columns))

    def _popularity(self, items: Ints, now_ms: Ints) -> Ints:
        """Events of each item before the moment, of those that may be trained on. Both broadcast to one shape."""
        until = np.searchsorted(self._item_times, self._item_time(items, now_ms))
        found: Ints = until - np.searchsorted(self._item_times, self._item_time(items, np.zeros_like(items)))
        return found

    def _item_time(self, items: Ints, now_ms: Ints) -> Ints:
        """Numbers that sort by item, then time."""
        key: Ints = items * (len(self._times) + 1) + np.searchsorted(self._times, now_ms)
        return key
