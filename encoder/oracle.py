"""Whether states are right: each against its user's sequence and against a from-scratch encoding of its own events.

Slots are compared in steps of the int8 code: |stored - fresh| / scale. On one kind of CPU the two are equal in bits, whatever way
a state came about (encoder/runtime.py); between machines or providers numbers close to the middle of two codes fall to either
side. A wrong event, a wrong position or a skipped event move them by many steps (`Tolerance`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoder.plan import Plan, PlanKind
from encoder.refresh import Graphs, Refreshed, Refresher, Tokens, Want
from encoder.store import Deleted, Invalid, Loaded, is_newer
from schemas.scales import NEIGHBOURS, decode_scales
from schemas.sequence import Records
from schemas.state import Fence, State, StateLayout

_BATCH = 256


@dataclass(frozen=True)
class Tolerance:
    """Measured on the demo's model: one other action or surface moves its slot by 13 steps and more, another item by 58, a
    skipped event all later slots by 8. Of nine slots behind a wrong one, the one that moves most does so by 0.2 to 0.7 on
    average. The embedding of the state one event before has a cosine of at most 0.993.

    Attributes:
        steps: no number of a slot may be further off, in steps of its int8 code.
        slot_mean_steps: nor all numbers of one slot on average.
        cosine: at least this, between stored and fresh user embedding.
    """

    steps: float = 1.5
    slot_mean_steps: float = 0.05
    cosine: float = 0.9999


#: For states that were made on another provider than the one that checks them. Measured on an H100, fp16 against a CPU's fp32
#: (docs/gpu.md): up to 1.1 steps and .10 on average with a trained model, 1.8 and .21 with random weights at medium; in fp32 up
#: to 1.1 and .08. A number that lies next to the middle of two codes falls to the other side, and what follows moves with it. The
#: mistakes that `Tolerance` names are still outside.
ACROSS_PROVIDERS = Tolerance(steps=2.5, slot_mean_steps=0.3)


class Claim(NamedTuple):
    """What is stored of a user, and what it should be made from.

    Attributes:
        records: `(m,)` of RECORD, the user's sequence; empty: there should be no state.
        newest: where in the changelog that sequence stands, if known.
    """

    user: bytes
    records: Records
    stored: Loaded
    newest: Fence | None = None


class Mismatch(NamedTuple):
    user: bytes
    what: str


def check_states(
    graphs: Graphs,
    tokens: Tokens,
    layout: StateLayout,
    claims: Iterable[Claim],
    tolerance: Tolerance | None = None,
) -> list[Mismatch]:
    """Check states; returns what is wrong, at most one mismatch per user. Claims are consumed in batches."""
    refresher = Refresher(graphs, tokens, layout)
    tolerance = tolerance or Tolerance()
    claims = iter(claims)
    found: list[Mismatch] = []
    while batch := list(islice(claims, _BATCH)):
        found += _check_batch(refresher, batch, tolerance)
    return found


def _check_batch(refresher: Refresher, claims: Sequence[Claim], tolerance: Tolerance) -> Iterator[Mismatch]:
    to_encode: list[tuple[Claim, State]] = []
    for claim in claims:
        what = _against_sequence(claim, refresher.layout)
        if what:
            yield Mismatch(claim.user, what)
        elif isinstance(claim.stored, State):
            to_encode.append((claim, claim.stored))
    wants = [Want(claim.user, state.events, None) for claim, state in to_encode]
    plans = [Plan(PlanKind.FULL, 0, state.events) for _, state in to_encode]
    for (claim, state), fresh in zip(to_encode, refresher.make(wants, plans), strict=True):
        what = _against_fresh(state, fresh, tolerance)
        if what:
            yield Mismatch(claim.user, what)


def _against_sequence(claim: Claim, layout: StateLayout) -> str:
    """What is wrong with the state's events and header; empty: nothing."""
    records, stored, m = claim.records, claim.stored, len(claim.records)
    if isinstance(stored, Invalid):
        return stored.reason
    if stored is None or isinstance(stored, Deleted):
        return f"there is no state, the sequence has {m} events" if m else ""
    header, n = stored.header, len(stored.slots)
    if not m:
        return f"there is a state of {n} events, the sequence has none"
    if claim.newest is not None and is_newer(header.fence, claim.newest):
        return f"its fence {header.fence.offset} is ahead of the changelog, {claim.newest.offset}"
    if n > layout.shape.context or n < min(layout.shape.keep, m):
        return f"it has {n} events of the sequence's {m}"
    if stored.events.tobytes() != records[m - n :].tobytes():
        return f"its {n} events are not the newest {n} of the sequence's {m}"
    if header.newest_event_ms != int(records["timestamp_ms"][-1]):
        return f"its header says that its newest event is of {header.newest_event_ms}, it is of {records['timestamp_ms'][-1]}"
    return ""


def _against_fresh(state: State, fresh: Refreshed, tolerance: Tolerance) -> str:
    steps = slot_steps(state.slots, fresh.slots).reshape(len(state.slots), -1)  # (n, 2 L G D)
    worst, mean = steps.max(axis=1), steps.mean(axis=1)
    wrong = ~((worst <= tolerance.steps) & (mean <= tolerance.slot_mean_steps))
    if wrong.any():
        first = int(wrong.argmax())
        return (
            f"its slots are not what its events encode to: from slot {first} on, {int(wrong.sum())} of {len(steps)} differ, "
            f"by up to {float(worst.max()):.1f} steps, {float(mean.max()):.2f} on average"
        )
    stored, wanted = state.header.embedding.astype(np.float64), fresh.embedding.astype(np.float64)
    with np.errstate(invalid="ignore"):  # what is not finite gives no cosine, and is found below
        cosine = float(stored @ wanted) / max(float(np.linalg.norm(stored)) * float(np.linalg.norm(wanted)), 1e-9)
    if not cosine >= tolerance.cosine:
        return f"its user embedding is not that of its newest event: cosine {cosine:.5f}"
    return ""


def slot_steps(stored: NDArray[np.void], fresh: NDArray[np.void]) -> NDArray[np.float32]:
    """How far keys and values are apart, in steps of the fresh code. `(n,)` slots twice -> `(n, 2, L, G, D)` f32."""
    scales, fresh_scales = decode_scales(stored["scale_codes"]), decode_scales(fresh["scale_codes"])
    return steps_apart(stored["kv"], scales, fresh["kv"], fresh_scales)


def steps_apart(
    kv: NDArray[np.int8], scales: NDArray[np.float16], fresh_kv: NDArray[np.int8], fresh_scales: NDArray[np.float16]
) -> NDArray[np.float32]:
    """The same of keys and values, and their scales, by themselves: `(..., D)` and `(...)` -> `(..., D)`.

    Between machines a largest number next to the border of two scales falls to either side, and then all numbers of its head are
    rounded anew. What rounding by two neighbouring scales may take is left out: half a step of each.
    """
    scale, fresh = (of.astype(np.float32)[..., None] for of in (scales, fresh_scales))
    with np.errstate(invalid="ignore"):
        neighbours = (scale != fresh) & (np.maximum(scale, fresh) <= NEIGHBOURS * np.minimum(scale, fresh))
        apart = np.abs(kv * scale - fresh_kv * fresh) - np.where(neighbours, (scale + fresh) / 2, 0)
        steps: NDArray[np.float32] = np.maximum(apart, 0) / fresh
    return np.nan_to_num(steps, nan=np.inf, posinf=np.inf)
