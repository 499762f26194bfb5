"""Pictures of sequences and states. What refreshes keep and encode is not drawn by hand: `encoder.plan` decides it."""

from __future__ import annotations

import numpy as np

from docs.pictures.svg import Picture
from encoder.plan import plan
from schemas.sequence import RECORD, Records


def sequence() -> Picture:
    """Arrival in any order, duplicates and all; the sequence is the newest of the union."""
    p = Picture(
        1000,
        214,
        "Events arrive late, twice and out of order; the sequence holds the newest distinct ones, in order of time.",
    )
    p.text(8, 52, "as they arrive", "small", "start")
    for place, time in enumerate((3, 1, 4, 4, 7, 2, 6, 7, 5)):
        twice = (place, time) in ((3, 4), (7, 7))
        x = 170 + 68 * place
        p.box(x, 26, 48, 40, "gone" if twice else "new")
        p.text(x + 24, 52, str(time), "" if twice else "on")
    p.text(806, 52, "dashed: sent twice", "small", "start")
    p.path((470, 78), (470, 128))
    p.text(488, 108, "merge: the newest 5 of the union, sorted by time, distinct (256 in life)", "small", "start")
    p.text(8, 164, "the sequence", "small", "start")
    for place, time in enumerate(range(1, 8)):
        x = 238 + 68 * place
        p.box(x, 138, 48, 40, "gone" if time < 3 else "kept")
        p.text(x + 24, 164, str(time), "" if time < 3 else "on")
    p.text(284, 202, "too old for five", "small")
    return p


def state() -> Picture:
    """The value in Redis."""
    p = Picture(
        1000,
        232,
        "A state: a header of 128 bytes, the user embedding, and a slot for each event with its keys and values.",
    )
    p.box(8, 30, 190, 56, "process")
    p.text(103, 54, "header", "title")
    p.text(103, 75, "128 bytes", "small")
    p.box(198, 30, 180, 56, "data")
    p.text(288, 54, "user embedding", "title")
    p.text(288, 75, "fp16", "small")
    for i in range(7):
        x = 378 + 76 * i
        p.box(x, 30, 76, 56, "kept" if i < 6 else "gone", 0)
        p.text(x + 38, 64, f"slot {i}" if i < 6 else "room", "on" if i < 6 else "small")
    p.path((103, 90), (103, 116), arrow=False)
    for line, text in enumerate(
        ("model id, shape, revision", "fence: changelog offset", "arrived_ms, newest_event_ms", "checksums")
    ):
        p.text(8, 140 + 22 * line, text, "small", "start")
    p.path((644, 90), (644, 116), arrow=False)
    p.box(378, 120, 172, 46, "process", 0)
    p.text(464, 148, "event, 20 bytes", "small")
    p.box(550, 120, 250, 46, "data", 0)
    p.text(675, 148, "keys and values, int8", "small")
    p.box(800, 120, 110, 46, "data", 0)
    p.text(855, 148, "scales", "small")
    p.text(644, 196, "keys and values of every layer: what attention to this event needs", "small")
    p.text(644, 217, "slot i is a function of events 0 to i alone", "small")
    return p


def refresh() -> Picture:
    """What `encoder.plan` keeps and encodes, with room for 8 events, anchored anew at the newest 6."""
    p = Picture(
        1000,
        456,
        "Refreshes: which slots stay and which events are encoded, for an append, a late event, a full window and a forget.",
    )
    ten = list(range(10, 19))
    cases = [
        ("one event more", ten[:5], ten[:6]),
        ("several at once", ten[:5], ten[:8]),
        ("a late event", [10, 11, 13, 14, 15], [10, 11, 12, 13, 14, 15]),
        ("the window is full", ten[:8], ten),
        ("older ones forgotten", ten[:6], ten[3:6]),
        ("nothing new", ten[:6], ten[:6]),
    ]
    for x, text in ((8, "what happened"), (228, "the state was"), (846, "kind")):
        p.text(x, 26, text, "small", "start")
    p.box(524, 12, 18, 18, "kept", 3)
    p.text(550, 26, "stays", "small", "start")
    p.box(606, 12, 18, 18, "new", 3)
    p.text(632, 26, "is encoded", "small", "start")
    for row, (what, held, asked) in enumerate(cases):
        y = 46 + 68 * row
        found = plan(_records(held), _records(asked), capacity=8, keep=6)
        p.text(8, y + 27, what, "", "start")
        for place, time in enumerate(held):
            p.box(228 + 32 * place, y, 29, 40, "plain", 3)
            p.text(242.5 + 32 * place, y + 26, str(time), "small")
        p.path((492, y + 20), (516, y + 20))
        for place, time in enumerate(found.wanted["timestamp_ms"].tolist()):
            p.box(524 + 34 * place, y, 31, 40, "kept" if place < found.kept else "new", 3)
            p.text(539.5 + 34 * place, y + 26, str(time), "on")
        p.text(846, y + 26, found.kind.value, "code", "start")
    return p


def anchor() -> Picture:
    """The length of a state while events come one by one, by `encoder.plan` with its own sizes."""
    p = Picture(
        1000, 268, "A state grows to 256 events; then it is anchored anew at the newest 192, once in 65 events."
    )
    held = _records([])
    lengths, encoded = [], []
    log = _records(list(range(521)))
    for newest in range(1, 521):
        found = plan(held, log[max(0, newest - 256) : newest])
        held = found.wanted
        lengths.append(len(found.wanted))
        encoded.append(len(found.new_events))
    x, y = (lambda events: 92 + 1.7 * events), (lambda slots: 218 - 0.72 * slots)
    for slots in (192, 256):
        p.path((92, y(slots)), (976, y(slots)), kind="faint", arrow=False)
        p.text(82, y(slots) + 5, str(slots), "small", "end")
    p.path((92, y(0)), (976, y(0)), arrow=False)
    p.path(*((x(i + 1), y(length)) for i, length in enumerate(lengths)), kind="new-line", arrow=False)
    anew = [i + 1 for i, count in enumerate(encoded) if count > 1]
    p.text(82, y(0) + 5, "0", "small", "end")
    p.text(92, 20, "slots of the state", "small", "start")
    p.text(92, 246, "events of the user:", "small", "start")
    for event in anew[:-1]:
        p.text(x(event), 246, str(event), "small")
    p.text(x(34), y(166), "append: one slot an event", "small", "start")
    p.text(x(anew[0]), y(132), f"anchored anew: {max(encoded)} events encoded,", "small", "start")
    p.text(x(anew[0]), y(104), f"once in {anew[1] - anew[0]} events", "small", "start")
    return p


def dcat() -> Picture:
    """One context, many candidates."""
    p = Picture(
        1000, 300, "The context is encoded once and cached; each candidate attends to the cached slots and to itself."
    )
    p.text(8, 28, "context: encoded once per event, cached", "small", "start")
    for i in range(8):
        p.box(8 + 58 * i, 42, 52, 50, "kept", 4)
        p.text(34 + 58 * i, 73, "k, v", "on")
    p.text(8, 118, "the slots of one state, read in one round trip", "small", "start")
    p.text(620, 28, "crossing: once per request", "small", "start")
    for i, name in enumerate(("1", "2", "…", "C")):
        y = 44 + 58 * i
        p.path((620, y + 20), (490, 68 + 4 * i), kind="new-line")
        p.box(624, y, 132, 42, "new", 4)
        p.text(690, y + 27, f"candidate {name}" if name != "…" else "…", "on")
        p.path((760, y + 20), (812, y + 20))
        p.text(822, y + 26, "hidden state, score", "small", "start")
    p.text(8, 186, "A candidate sees the whole context and itself,", "", "start")
    p.text(8, 208, "no other candidate: at the position after the last slot.", "", "start")
    p.text(8, 246, "Without the cache each request encodes up to 256 events first;", "small", "start")
    p.text(8, 266, "without crossing it does so for every candidate.", "small", "start")
    return p


def _records(times: list[int]) -> Records:
    records = np.zeros(len(times), RECORD)
    records["timestamp_ms"] = times
    return records
