"""One user, followed: the state, its events, the items that it ranks best, and what has changed since the last look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import msgspec

from encoder.bundle import Bundle
from ranker.rank import Catalogue, retrieve
from ranker.rows import Row
from schemas.errors import SlipstreamError
from schemas.event import MAX_USER_BYTES
from schemas.sequence import Records
from schemas.state import Header, State
from schemas.vocabulary import Vocabulary
from slipstream.watch.figures import places_before
from slipstream.watch.states import States

SHOWN_EVENTS = 100
SHOWN_ITEMS = 10


class Event(msgspec.Struct, frozen=True):
    """Of a state. `item_id` is text, since a browser's numbers end at 2^53. `new`: it came since the last look."""

    timestamp_ms: int
    item_id: str
    title: str
    action: str
    surface: str
    new: bool


class Item(msgspec.Struct, frozen=True):
    """Of the ranked list. `before`: its place in the list before, from 0; None: it was not in it."""

    item_id: str
    title: str
    score: float
    before: int | None


class Slots(msgspec.Struct, frozen=True):
    """`length` of `capacity` are in use, and the model takes `context`, None if its bundle is not known."""

    length: int
    capacity: int
    context: int | None
    value_bytes: int


class UserView(msgspec.Struct, frozen=True):
    """
    Attributes:
        status: of the row: present, stale, not_found, invalid; unavailable if Redis did not answer.
        why: of the status, for people.
        arrived_ms: every event that reached Kafka until then is in the state.
        encoded_ms: when the state was written.
        events: newest first, at most SHOWN_EVENTS.
        items: best first.
        note: why there are no items; empty if there are.
    """

    user: str
    model_id: str | None
    status: str
    why: str
    arrived_ms: int | None = None
    encoded_ms: int | None = None
    slots: Slots | None = None
    events: list[Event] = []
    items: list[Item] = []
    note: str = ""


@dataclass(frozen=True)
class Shelf:
    """What turns ids into words and states into recommendations.

    Attributes:
        bundle: None: there is none here.
        titles: item id -> title.
    """

    bundle: Bundle | None
    vocabulary: Vocabulary
    titles: Mapping[int, str]

    @cached_property
    def catalogue(self) -> Catalogue | None:
        return Catalogue.of(self.bundle) if self.bundle else None

    def events(self, records: Records, former: Records | None) -> list[Event]:
        """Newest first; those that `former` does not have are new."""
        known = None if former is None else set(former.tolist())
        return [
            Event(
                record[0],
                str(record[1]),
                self.titles.get(record[1], ""),
                self.vocabulary.action_name(record[2]),
                self.vocabulary.surface_name(record[3]),
                known is not None and record not in known,
            )
            for record in reversed(records[-SHOWN_EVENTS:].tolist())
        ]

    def best(self, state: State) -> list[tuple[int, float]]:
        """Item ids and scores of what the user embedding ranks best, without what the user has seen."""
        assert self.catalogue is not None
        found = retrieve(state.header.embedding, self.catalogue, SHOWN_ITEMS, exclude=state.events["item_id"])
        return list(zip(found.items.tolist(), found.scores.tolist(), strict=True))


class Followed:
    """A user whom somebody watches. One caller at a time."""

    def __init__(self, user: str, states: States, shelf: Shelf) -> None:
        self._user, self._states, self._shelf = user, states, shelf
        self._shown: tuple[object, ...] | None = None
        self._events: Records | None = None
        self._items: list[int] | None = None

    def look(self) -> UserView | None:
        """The user now; None if nothing has changed since the last look, which costs one header."""
        try:
            key = self._user.encode(errors="replace")[: MAX_USER_BYTES + 1]
            header = self._states.headers([key]).get(key) if len(key) <= MAX_USER_BYTES else None
            if header is not None and self._shown == self._seen(header):
                return None
            row = self._states.row(self._user)
        except SlipstreamError as error:
            return self._told(UserView(self._user, self._states.active, "unavailable", str(error)))
        if row.state is None:
            self._events = self._items = None
            return self._told(UserView(self._user, self._states.active, str(row.status), row.why))
        self._shown = self._seen(row.state.header)
        return self._view(row, row.state)

    def _seen(self, header: Header) -> tuple[object, ...]:
        return header.model_id, header.revision, self._states.is_stale(header)

    def _told(self, view: UserView) -> UserView | None:
        shown = (view.status, view.why, view.model_id)
        if self._shown == shown:
            return None
        self._shown = shown
        return view

    def _view(self, row: Row, state: State) -> UserView:
        header, shelf, bundle = state.header, self._shelf, self._states.bundle
        events = shelf.events(state.events, self._events)
        self._events = state.events.copy()
        best = shelf.best(state) if bundle else []
        now = [item_id for item_id, _ in best]
        before = places_before(self._items, now)
        self._items = now if bundle else None
        return UserView(
            self._user,
            header.model_id,
            str(row.status),
            row.why,
            header.arrived_ms,
            header.encoded_ms,
            Slots(
                header.length,
                header.capacity,
                bundle.shape.context if bundle else None,
                state.value_bytes,
            ),
            events,
            [
                Item(str(item_id), shelf.titles.get(item_id, ""), score, place)
                for (item_id, score), place in zip(best, before, strict=True)
            ],
            "" if bundle else model_note(shelf.bundle, self._states.active),
        )


def model_note(bundle: Bundle | None, active: str | None) -> str:
    """What keeps recommendations from being shown; empty if nothing does."""
    if active is None:
        return "no model is active yet: an encoder sets it when it first starts"
    if bundle is None:
        return "there is no model bundle here: set SLIPSTREAM_BUNDLE, and start again"
    if bundle.model_id != active:
        return f"rankers read model {active}, the bundle here is {bundle.model_id}: start with the bundle of {active}"
    return ""
