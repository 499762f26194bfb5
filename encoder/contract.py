"""Whether a bundle's graphs keep what all the rest relies on, whatever architecture is in them (docs/own-encoder.md).

Asked of the graphs as they run, on random tokens: shapes and types; that slots are functions of their own and earlier events
alone, so that appending equals encoding anew; that neither padding nor the other rows of a batch matter; lengths of vectors.

Letters: B rows, T tokens, P past slots, C candidates, d model width.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from encoder.bundle import Bundle
from encoder.oracle import Tolerance, steps_apart
from encoder.runtime import Runtime, RuntimeConfig, Scores, Slots
from schemas.errors import BundleError, SlipstreamError
from schemas.scales import encode_scales

_ROWS, _CANDIDATES = 4, 5
_UNIT = 1e-3
#: Between scores and hidden states that must be the same; ONNX Runtime may sum in another order.
_CLOSE = 1e-3


def require_contract(bundle: Bundle, seed: int = 0) -> None:
    """
    Raises:
        BundleError: the graphs break a promise; the message tells which, all of them.
        ProviderError, PrerequisiteError: as encoder.runtime.Runtime.
    """
    if broken := list(broken_promises(bundle, seed)):
        raise BundleError(f"{bundle.directory}: its graphs do not keep the contract: " + "; ".join(broken))


def broken_promises(bundle: Bundle, seed: int = 0) -> Iterator[str]:
    """What the graphs do not keep, in words; nothing if they keep it all."""
    try:
        yield from _broken_promises(bundle, seed)
    except SlipstreamError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        yield f"a graph does not run: {str(error).strip()[:300]}"


def _broken_promises(bundle: Bundle, seed: int) -> Iterator[str]:
    shape, rng = bundle.shape, np.random.default_rng(seed)
    runtime = Runtime(bundle, RuntimeConfig(precision="fp32"))
    tokens = rng.normal(size=(_ROWS, shape.context, shape.d_model)).astype(np.float32)
    length = rng.integers(shape.context // 2, shape.context - 1, _ROWS) + 1
    tokens = tokens[:, : length.max()]
    whole = runtime.encode(tokens, length - 1)
    # What does not even have the right form is not looked at further.
    if wrong := _slots_form(whole, tokens.shape, bundle):
        yield f"encode: {wrong}"
        return
    for kept in (1, int(length.min()) // 2, int(length.min()) - 1):
        yield from _append(runtime, tokens, length, whole, kept)
    for row in range(_ROWS):
        alone = runtime.encode(tokens[row : row + 1, : length[row]], length[row : row + 1] - 1)
        yield from _same_slots(
            "encode of a row alone, without padding:", alone, _row(whole, row, length[row]), length[row : row + 1]
        )
    yield from _cross(runtime, rng, whole, length, shape.d_model)


def _slots_form(made: Slots, size: tuple[int, ...], bundle: Bundle) -> str:
    (rows, n_tokens, d), s = size, bundle.shape
    slot = (rows, n_tokens, 2, s.layers, s.kv_heads)
    for name, array, dtype, expected in (
        ("kv", made.kv, np.int8, (*slot, s.head_dim)),
        ("scales", made.scales, np.float16, slot),
        ("embedding", made.embedding, np.float32, (rows, d)),
    ):
        if array.dtype != dtype or array.shape != expected:
            return f"{name} is {array.dtype} {array.shape}, not {np.dtype(dtype)} {expected}"
    try:
        encode_scales(made.scales)
    except BundleError:
        return "scales are not on the grid of schemas.scales"
    if not _are_unit(made.embedding):
        return "embeddings are not of unit length"
    return ""


def _append(
    runtime: Runtime, tokens: NDArray[np.float32], length: NDArray[np.int64], whole: Slots, kept: int
) -> Iterator[str]:
    """On top of `kept` slots, with numbers behind them that must not matter."""
    past_kv, past_scales = whole.kv[:, : kept + 2].copy(), whole.scales[:, : kept + 2].copy()
    past_kv[:, kept:], past_scales[:, kept:] = 101, np.float16(1)
    n_past = np.full(_ROWS, kept, np.int64)
    new = runtime.append(tokens[:, kept:], past_kv, past_scales, n_past, length - kept - 1)
    expected = Slots(whole.kv[:, kept:], whole.scales[:, kept:], whole.embedding)
    yield from _same_slots(f"append on top of {kept} slots:", new, expected, length - kept)


def _same_slots(what: str, made: Slots, expected: Slots, length: NDArray[np.int64]) -> Iterator[str]:
    """Slots up to `length` of each row, and embeddings, within what `slipstream verify` tolerates."""
    tolerance = Tolerance()
    real = np.arange(made.kv.shape[1]) < length[:, None]  # (B, T)
    steps = steps_apart(made.kv, made.scales, expected.kv, expected.scales)[real]
    by_slot = steps.reshape(len(steps), -1)
    if by_slot.max() > tolerance.steps or by_slot.mean(axis=1).max() > tolerance.slot_mean_steps:
        yield f"{what} slots are other ones than encoded at once, by up to {by_slot.max():.1f} steps"
    cosine = (made.embedding * expected.embedding).sum(axis=1).min()
    if not cosine >= tolerance.cosine:
        yield f"{what} the embedding is another one than encoded at once, cosine {cosine:.5f}"


def _cross(runtime: Runtime, rng: np.random.Generator, past: Slots, length: NDArray[np.int64], d: int) -> Iterator[str]:
    candidates = rng.normal(size=(_ROWS, _CANDIDATES, d)).astype(np.float32)
    crossed = runtime.cross(candidates, past.kv, past.scales, length)
    size = (_ROWS, _CANDIDATES)
    if crossed.hidden.shape != (*size, d) or crossed.score.shape != size:
        yield f"cross: hidden {crossed.hidden.shape} and score {crossed.score.shape}, not {(*size, d)} and {size}"
        return
    if not _are_unit(crossed.hidden) or not np.isfinite(crossed.score).all():
        yield "cross: hidden states are not of unit length, or scores not finite"
    for row in range(_ROWS):
        end = int(length[row])
        alone = runtime.cross(
            candidates[row : row + 1, :1], past.kv[row : row + 1, :end], past.scales[row : row + 1, :end], length[[row]]
        )
        if not _close(alone, Scores(crossed.hidden[row : row + 1, :1], crossed.score[row : row + 1, :1])):
            yield "cross: other candidates, other users or padding change a candidate's score"
            break
    nobody = np.zeros(_ROWS, np.int64)
    cold = runtime.cross(candidates, past.kv, past.scales, nobody)
    empty = runtime.cross(candidates, np.zeros_like(past.kv), np.ones_like(past.scales), nobody)
    if not np.isfinite(cold.score).all() or not _close(cold, empty):
        yield "cross: a user without a state (past_length 0) gets no score, or one by slots that are none"


def _row(slots: Slots, row: int, end: int) -> Slots:
    return Slots(slots.kv[row : row + 1, :end], slots.scales[row : row + 1, :end], slots.embedding[row : row + 1])


def _are_unit(vectors: NDArray[np.float32]) -> bool:
    return bool((np.abs(np.linalg.norm(vectors, axis=-1) - 1) < _UNIT).all())


def _close(one: Scores, other: Scores) -> bool:
    return np.allclose(one.hidden, other.hidden, atol=_CLOSE) and np.allclose(one.score, other.score, atol=_CLOSE)
