"""From events to states: the pure half of the encoder, batches in and batches out.

Users come with what is stored of them. Each gets a plan; those that keep nothing go through the `encode` graph, those that keep
something through `append`, grouped so that padding wastes little. What comes out is only what is new: slots and a user embedding.

Letters: B users of one run, T new tokens, P past slots, L layers, G kv heads, D head_dim, d model width.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from encoder.features import NO_EVENT_MS
from encoder.past import Resident, gather_past
from encoder.plan import Plan, PlanKind, plan
from encoder.stopwatch import Stopwatch
from schemas.scales import encode_scales
from schemas.sequence import NO_RECORDS, RECORD, Records
from schemas.state import StateLayout


@dataclass(frozen=True)
class RunLimits:
    """What one run may hold, unless it is one user.

    Attributes:
        token_bytes: of (B, T, d) f32.
        past_bytes: of (B, P) slots.
    """

    users: int
    token_bytes: int
    past_bytes: int


#: Past these a CPU gets slower per user (measured): activations and pasts leave its caches.
CPU_LIMITS = RunLimits(64, 1 << 20, 64 << 20)
#: Of an H100 (docs/gpu.md): the last bucket of users; 64 full windows of medium, where it is at its best, or 128 of small.
GPU_LIMITS = RunLimits(256, 16 << 20, 256 << 20)

#: Lengths between two steps are looked at as one when users are grouped.
STEPS = np.array([0, 1, 2, 4, 8, 16, 32, 64, 96, 128, 160, 192, 224, 256])
#: What a run costs beside its users, and what a past slot costs, both in tokens (measured on a CPU: 12 to 20, .010 to .014).
RUN_TOKENS = 14.0
PAST_SLOT_TOKENS = 0.012


def limits_of(provider: str) -> RunLimits:
    """Args: provider: the rung that the graphs run on, encoder.runtime.Runtime.provider."""
    return CPU_LIMITS if provider == "cpu" else GPU_LIMITS


class Slots(Protocol):
    """What the graphs answer (encoder.runtime.Slots)."""

    @property
    def kv(self) -> NDArray[np.int8]: ...  # (B, T, 2, L, G, D)
    @property
    def scales(self) -> NDArray[np.float16]: ...  # (B, T, 2, L, G)
    @property
    def embedding(self) -> NDArray[np.float32]: ...  # (B, d)


class Graphs(Protocol):
    """The two graphs that make states (encoder.runtime.Runtime)."""

    def encode(self, tokens: NDArray[np.float32], last: NDArray[np.int64]) -> Slots: ...

    def append(
        self,
        tokens: NDArray[np.float32],
        past_kv: NDArray[np.int8],
        past_scales: NDArray[np.float16],
        past_length: NDArray[np.int64],
        last: NDArray[np.int64],
    ) -> Slots: ...


class Tokens(Protocol):
    """The host's tables (encoder.features.Features)."""

    def tokens(self, records: Records, previous_ms: NDArray[np.int64]) -> NDArray[np.float32]: ...


class Want(NamedTuple):
    """
    Attributes:
        records: `(m,)` of RECORD, the user's sequence; empty to delete the state.
        base: the state to build on; None if there is none that can be read.
    """

    user: bytes
    records: Records
    base: Resident | None


class Refreshed(NamedTuple):
    """
    Attributes:
        slots: `(len(plan.wanted) - plan.kept,)` of StateLayout.slot, those that follow the kept ones.
        slots_crc: CRC-32 of all slots, kept and new.
        embedding: `(d,)` f16, unit length; `(0,)` for a delete.
    """

    user: bytes
    plan: Plan
    slots: NDArray[np.void]
    slots_crc: int
    embedding: NDArray[np.float16]


class Refresher:
    """Makes states of one model. Not for several threads at once."""

    def __init__(
        self,
        graphs: Graphs,
        tokens: Tokens,
        layout: StateLayout,
        watch: Stopwatch | None = None,
        incremental: bool = True,
        limits: RunLimits = CPU_LIMITS,
    ) -> None:
        """
        Args:
            incremental: build on states that are there; False encodes every sequence from nothing, to compare with.
            limits: as the graphs' provider has them, `limits_of`.
        """
        self.layout = layout
        self._incremental = incremental
        self._graphs = graphs
        self._tokens = tokens
        self._watch = watch or Stopwatch()
        self._max_tokens = limits.token_bytes // (4 * layout.shape.d_model)
        self._max_past = limits.past_bytes // layout.slot_bytes
        self._max_users = limits.users

    def refresh(self, wants: Sequence[Want]) -> list[Refreshed]:
        """The new part of each user's state, in the order of `wants`."""
        shape = self.layout.shape
        if not self._incremental:
            wants = [want._replace(base=None) for want in wants]
        with self._watch("plan"):
            plans = [
                plan(NO_RECORDS if want.base is None else want.base.events, want.records, shape.context, shape.keep)
                for want in wants
            ]
        return self.make(wants, plans)

    def make(self, wants: Sequence[Want], plans: Sequence[Plan]) -> list[Refreshed]:
        """Carry out plans, in the order of `wants`."""
        refreshed: list[Refreshed | None] = [self._without_run(w, p) for w, p in zip(wants, plans, strict=True)]
        to_run = [i for i, done in enumerate(refreshed) if done is None]
        kept = np.array([plans[i].kept for i in to_run], np.int64)
        new = np.array([len(plans[i].wanted) for i in to_run], np.int64) - kept
        for group in runs(new, kept, self._max_tokens, self._max_past, self._max_users):
            rows = [to_run[i] for i in group]
            made = self._run([wants[i] for i in rows], [plans[i] for i in rows], new[group], kept[group])
            for i, row in zip(rows, made, strict=True):
                refreshed[i] = row
        return [row for row in refreshed if row is not None]

    def _without_run(self, want: Want, made: Plan) -> Refreshed | None:
        if made.kind is PlanKind.DELETE:
            return Refreshed(want.user, made, np.empty(0, self.layout.slot), 0, np.empty(0, np.float16))
        if made.kind is PlanKind.HIT:
            assert want.base is not None
            header = want.base.header
            return Refreshed(want.user, made, np.empty(0, self.layout.slot), header.slots_crc, header.embedding)
        return None

    def _run(
        self, wants: list[Want], plans: list[Plan], new: NDArray[np.int64], kept: NDArray[np.int64]
    ) -> Iterator[Refreshed]:
        """One run of one graph: `encode` if nobody keeps anything, else `append`."""
        with self._watch("gather"):
            longest = int(new.max())
            real = np.arange(longest) < new[:, None]  # (B, T)
            # Joined as bytes: numpy takes long to agree with itself on the fields of a structure.
            events = np.frombuffer(b"".join([made.new_events.tobytes() for made in plans]), RECORD)  # (n,)
            tokens = np.zeros((len(plans), longest, self.layout.shape.d_model), np.float32)
            tokens[real] = self._tokens.tokens(events, _previous_ms(events, plans, new))
            pasts = [w.base.past(p.kept) for w, p in zip(wants, plans, strict=True) if p.kept and w.base is not None]
            past = gather_past(pasts, int(kept.max()), self.layout) if pasts else None
        with self._watch("run"):
            out = self._graphs.encode(tokens, new - 1) if past is None else self._graphs.append(tokens, *past, new - 1)
        with self._watch("slots"):
            slots = np.zeros(real.shape, self.layout.slot)  # (B, T)
            padded_events = np.zeros(real.shape, RECORD)
            padded_events[real] = events
            slots["event"], slots["kv"], slots["scale_codes"] = padded_events, out.kv, encode_scales(out.scales)
            embeddings = out.embedding.astype(np.float16)  # (B, d)
        for want, made, count, row, embedding in zip(wants, plans, new.tolist(), slots, embeddings, strict=True):
            yield Refreshed(want.user, made, row[:count], _crc(want.base, made.kept, row[:count]), embedding)


def _previous_ms(events: Records, plans: Sequence[Plan], new: NDArray[np.int64]) -> NDArray[np.int64]:
    """`(n,)` i64: when the event before each happened. Each user's first new event follows the last that is kept, if any is."""
    times = events["timestamp_ms"]
    previous = np.empty_like(times)
    previous[1:] = times[:-1]
    first = np.cumsum(new) - new
    previous[first] = [p.wanted[p.kept - 1]["timestamp_ms"] if p.kept else NO_EVENT_MS for p in plans]
    return previous


def runs(
    new: NDArray[np.int64], kept: NDArray[np.int64], max_tokens: int, max_past: int, max_users: int = CPU_LIMITS.users
) -> Iterator[NDArray[np.int64]]:
    """Split users into runs of similar lengths.

    Args:
        new: `(n,)` tokens to encode, each at least 1.
        kept: `(n,)` past slots. Users with none and users with some never share a run: they need different graphs.
        max_tokens, max_past: a run's users times its longest row is at most this, unless it is one user.

    Yields:
        Indices; together each of the n once.
    """
    new_step, kept_step = np.searchsorted(STEPS, new), np.searchsorted(STEPS, kept)
    for members in (np.flatnonzero(kept == 0), np.flatnonzero(kept)):
        if not len(members):
            continue
        members = members[np.lexsort((kept[members], new_step[members]))]
        changes = np.diff(new_step[members]).astype(bool) | np.diff(kept_step[members]).astype(bool)
        run, *rest = np.split(members, np.flatnonzero(changes) + 1)
        for group in rest:
            joined = np.concatenate([run, group])
            if _cost(new[joined], kept[joined]) <= _cost(new[run], kept[run]) + _cost(new[group], kept[group]):
                run = joined
            else:
                yield from _cut(run, max_users, _fitting(new[run], max_tokens), _fitting(kept[run], max_past))
                run = group
        yield from _cut(run, max_users, _fitting(new[run], max_tokens), _fitting(kept[run], max_past))


def _cost(new: NDArray[np.int64], kept: NDArray[np.int64]) -> float:
    """About what one run costs, in tokens: it pads all to the longest."""
    tokens, past = int(new.max()), int(kept.max())
    return RUN_TOKENS + len(new) * (tokens + past * PAST_SLOT_TOKENS)


def _fitting(lengths: NDArray[np.int64], limit: int) -> int:
    return max(1, limit // max(1, int(lengths.max())))


def _cut(run: NDArray[np.int64], *limits: int) -> Iterator[NDArray[np.int64]]:
    users = min(limits)
    for start in range(0, len(run), users):
        yield run[start : start + users]


def _crc(base: Resident | None, kept: int, new: NDArray[np.void]) -> int:
    return zlib.crc32(new.tobytes(), base.slots_crc(kept) if base is not None and kept else 0)
