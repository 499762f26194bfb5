"""The oracle finds what is wrong, and only that. A state that is wrong in the smallest way is far outside of its tolerance."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from numpy.typing import NDArray

from encoder.engine import Engine, Update
from encoder.hot import HotStates
from encoder.oracle import ACROSS_PROVIDERS, Claim, Mismatch, Tolerance, check_states, slot_steps
from encoder.plan import Plan, PlanKind
from encoder.refresh import Refreshed, Want
from encoder.store import Deleted, Invalid
from encoder.store_memory import MemoryStateStore
from schemas.scales import decode_scales
from schemas.sequence import NO_RECORDS, Records
from schemas.state import Fence, State
from tests.encoder.histories import events
from tests.encoder.models import Model

USER = b"u-1"
HISTORY = events(range(20))


def encoded(model: Model, records: Records) -> Refreshed:
    return model.refresher().make([Want(USER, records, None)], [Plan(PlanKind.FULL, 0, records)])[0]


def state(model: Model, records: Records = HISTORY) -> State:
    store = MemoryStateStore(model.layout)
    Engine(model.refresher(), store, HotStates(model.layout, 0)).refresh(
        [Update(USER, records, Fence(bytes(16), 0, 10), 1)]
    )
    loaded = store.load([USER])[0]
    assert isinstance(loaded, State)
    return loaded


def forged(honest: State, slots: NDArray[np.void], embedding: NDArray[np.float16] | None = None) -> State:
    """The honest state's events over other keys and values, with checksums that are right."""
    slots = slots.copy()
    slots["event"] = honest.events
    header = honest.header._replace(slots_crc=zlib.crc32(slots.tobytes()))
    return State(header if embedding is None else header._replace(embedding=embedding), slots)


def check(model: Model, *claims: Claim) -> list[Mismatch]:
    return check_states(model.runtime, model.bundle.features, model.layout, claims)


def what(model: Model, records: Records, stored: object, newest: int = 10) -> str:
    found = check(model, Claim(USER, records, stored, Fence(bytes(16), 0, newest)))  # type: ignore[arg-type]
    assert len(found) == 1
    assert found[0].user == USER
    return found[0].what


def test_a_right_state_is_right(model: Model) -> None:
    assert check(model, Claim(USER, HISTORY, state(model), Fence(bytes(16), 0, 10))) == []
    assert check(model, Claim(USER, HISTORY, state(model))) == []
    assert check(model) == []


def test_nothing_of_a_user_without_events_is_right(model: Model) -> None:
    marker = Deleted(state(model).header)
    assert check(model, Claim(USER, NO_RECORDS, None), Claim(b"v", NO_RECORDS, marker)) == []


def test_states_that_should_not_be_there_and_such_that_should(model: Model) -> None:
    assert "the sequence has none" in what(model, NO_RECORDS, state(model))
    assert "there is no state" in what(model, HISTORY, None)
    assert "there is no state" in what(model, HISTORY, Deleted(state(model).header))
    assert "damaged thus" in what(model, HISTORY, Invalid(b"", "damaged thus"))


def test_events_that_are_not_the_newest(model: Model) -> None:
    assert "not the newest" in what(model, events(range(21)), state(model))
    assert "not the newest" in what(model, events([*range(19), 21]), state(model))
    assert "5 events of the sequence's 20" in what(model, HISTORY, state(model, HISTORY[-5:]))


def test_a_suffix_of_at_least_keep_events_is_right(model: Model) -> None:
    assert check(model, Claim(USER, HISTORY, state(model, HISTORY[-18:]))) == []
    assert "17 events" in what(model, HISTORY, state(model, HISTORY[-17:]))


def test_a_fence_ahead_of_the_changelog(model: Model) -> None:
    assert "ahead" in what(model, HISTORY, state(model), newest=9)


def test_a_header_that_lies_about_its_newest_event(model: Model) -> None:
    honest = state(model)
    lying = State(honest.header._replace(newest_event_ms=5), honest.slots)
    assert "newest event" in what(model, HISTORY, lying)


def wrong_item(records: Records) -> Records:
    other = records.copy()
    other["item_id"][12] += 1
    return other


def wrong_action(records: Records) -> Records:
    other = records.copy()
    other["action"][12] = other["action"][12] % 6 + 1
    return other


def wrong_surface(records: Records) -> Records:
    other = records.copy()
    other["surface"][12] = (other["surface"][12] + 1) % 6
    return other


def wrong_order(records: Records) -> Records:
    other = records.copy()
    other[[12, 13]] = other[[13, 12]]
    return other


@pytest.mark.parametrize("forgery", [wrong_item, wrong_action, wrong_surface, wrong_order])
def test_slots_computed_from_one_other_event_are_far_outside(model: Model, forgery: object) -> None:
    honest, other = state(model), encoded(model, forgery(HISTORY))  # type: ignore[operator]
    steps = slot_steps(forged(honest, other.slots).slots, honest.slots)
    assert not steps[:12].any()
    assert steps[12].max() > 10 * Tolerance().steps
    assert steps[12].mean() > 10 * Tolerance().slot_mean_steps
    assert steps[12].max() > 2 * ACROSS_PROVIDERS.steps
    assert steps[12].mean() > 2 * ACROSS_PROVIDERS.slot_mean_steps
    message = what(model, HISTORY, forged(honest, other.slots, other.embedding))
    assert message.startswith("its slots are not what its events encode to: from slot 12 on, 8 of 20 differ")


def test_a_slot_left_over_from_another_history_is_found(model: Model) -> None:
    """Slot 12 was right before an event came in earlier: what a broken write that keeps too much would leave."""
    other = encoded(model, wrong_item(HISTORY)).slots
    mixed = state(model).slots.copy()
    mixed[15] = other[15]  # its own event is right, but one three events earlier was another
    steps = slot_steps(mixed, state(model).slots)
    assert steps[15].max() > 2 * Tolerance().steps
    assert steps[15].max() > ACROSS_PROVIDERS.steps
    assert "from slot 15 on" in what(model, HISTORY, forged(state(model), mixed))


def test_a_wrong_position_is_far_outside(model: Model) -> None:
    honest = state(model)
    shifted = encoded(model, HISTORY[1:]).slots  # slot i of it holds event i + 1 at position i
    moved = np.concatenate([honest.slots[:1], shifted])
    steps = slot_steps(forged(honest, moved).slots, honest.slots)
    assert all(steps[i].max() > 10 * Tolerance().steps for i in range(1, 20))
    assert "from slot 1 on" in what(model, HISTORY, forged(honest, moved))


def test_a_skipped_event_is_far_outside(model: Model) -> None:
    """What an append would leave that did not see slot 19, the last."""
    honest = state(model, HISTORY)
    records = events(range(21))
    skipping = encoded(model, np.concatenate([HISTORY[:19], records[20:]])).slots[-1:]
    right = state(model, records)
    slots = np.concatenate([honest.slots, skipping])
    steps = slot_steps(forged(right, slots).slots, right.slots)
    assert steps[20].max() > 10 * Tolerance().steps
    assert "from slot 20 on" in what(model, records, forged(right, slots))


def test_the_embedding_of_one_event_before_is_found(model: Model) -> None:
    honest, before = state(model), encoded(model, HISTORY[:-1])
    assert "cosine" in what(model, HISTORY, forged(honest, honest.slots, before.embedding))


@pytest.mark.parametrize("code", [0, 255])
def test_a_scale_of_another_size_is_found(model: Model, code: int) -> None:
    honest = state(model)
    slots = honest.slots.copy()
    slots["scale_codes"][3] = code
    assert "from slot 3 on" in what(model, HISTORY, forged(honest, slots))


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0])
def test_an_embedding_of_no_numbers_is_found(model: Model, bad: float) -> None:
    honest = state(model)
    embedding = np.full_like(honest.header.embedding, bad)
    assert "cosine" in what(model, HISTORY, forged(honest, honest.slots, embedding))


def test_rounding_to_the_other_side_now_and_then_is_right(model: Model) -> None:
    """Another machine: few numbers one step off."""
    honest, rng = state(model), np.random.default_rng(0)
    slots = honest.slots.copy()
    kv = slots["kv"]
    off = rng.random(kv.shape) < 0.003
    kv[off] += np.where(kv[off] > 0, -1, 1).astype(np.int8)
    assert check(model, Claim(USER, HISTORY, forged(honest, slots))) == []


def test_a_head_on_the_other_side_of_a_scales_border_is_right(model: Model) -> None:
    """Another machine: the largest number of a head is a little larger there, so its numbers are rounded by a neighbour."""
    honest = state(model)
    slots = honest.slots.copy()
    slot = slots[7:8]
    codes = slot["scale_codes"][:, 1, 1] + np.uint8(1)
    scale, other = (decode_scales(of).astype(np.float32)[..., None] for of in (slot["scale_codes"][:, 1, 1], codes))
    slot["kv"][:, 1, 1] = np.rint(slot["kv"][:, 1, 1] * scale / other)
    slot["scale_codes"][:, 1, 1] = codes
    assert check(model, Claim(USER, HISTORY, forged(honest, slots))) == []
    slot["kv"][:, 1, 1, 0, 3] -= np.where(slot["kv"][:, 1, 1, 0, 3] > 0, 4, -4).astype(np.int8)
    assert "from slot 7 on" in what(model, HISTORY, forged(honest, slots))


def test_one_number_two_steps_off_is_found(model: Model) -> None:
    honest = state(model)
    slots = honest.slots.copy()
    slots["kv"][7, 1, 1, 0, 3] -= np.sign(slots["kv"][7, 1, 1, 0, 3]) * 2 or -2
    assert "from slot 7 on" in what(model, HISTORY, forged(honest, slots))


def test_each_wrong_user_of_many_is_named(model: Model) -> None:
    honest = state(model)
    wrong = forged(honest, encoded(model, wrong_item(HISTORY)).slots)
    claims = [Claim(b"%d" % i, HISTORY, wrong if i % 50 == 7 else honest) for i in range(600)]
    assert [found.user for found in check(model, *claims)] == [b"%d" % i for i in range(7, 600, 50)]
