"""The drawn pictures of docs/images/. From the repository's root:

    python -m docs.pictures.draw

What refreshes keep and encode is not drawn by hand: `encoder.plan` decides it, with windows of 8 events instead of 256.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from docs.pictures.svg import Picture
from encoder.plan import plan
from schemas.sequence import RECORD, Records

IMAGES = Path(__file__).parents[1] / "images"


def architecture() -> Picture:
    """The way of one event: processes below, what they leave above."""
    p = Picture(
        1080,
        392,
        "Producers write to the topic engagements; ingest packs events by partition into engagement-batches; sequence keeps each "
        "user's newest 256 events in the topic sequences; encode keeps a state for each user in Redis; rankers read it.",
    )
    wide, period, data_y, process_y = 196, 220, 46, 178
    processes = [
        ("producers", "JSON, MessagePack,", "Avro, Protobuf"),
        ("ingest", "validates, packs", "by partition"),
        ("sequence", "Faust table, fenced", "by transactions"),
        ("encode", "ONNX Runtime: only", "what is new"),
        ("ranker", "reads states, crosses", "candidates (DCAT)"),
    ]
    data = [
        ("engagements", "raw events"),
        ("engagement-batches", "packed"),
        ("sequences", "user ▸ last 256 events"),
        ("Redis", "user ▸ state"),
    ]
    p.text(100 - wide / 2, 24, "Kafka topics", "small", "start")
    p.text(870 - wide / 2, 24, "one value a user and model", "small", "start")
    for i, (name, what) in enumerate(data):
        x = 210 + period * i
        if name == "Redis":
            p.box(x - wide / 2, data_y, wide, 62, "data")
        else:
            p.log(x - wide / 2, data_y, wide, 62)
        middle = x if name == "Redis" else x - 8
        p.text(middle, data_y + 27, name, "title" if name == "Redis" else "code")
        p.text(middle, data_y + 48, what, "small")
        p.path((x - 55, process_y), (x - 55, data_y + 66))
        p.path((x + 55, data_y + 62), (x + 55, process_y - 4))
    for i, (name, *what) in enumerate(processes):
        x = 100 + period * i
        p.box(x - wide / 2, process_y, wide, 92, "process")
        p.text(x, process_y + 29, name, "title")
        for line, text in enumerate(what):
            p.text(x, process_y + 54 + 20 * line, text, "small")
    p.path((320, 270), (320, 316))
    p.log(320 - wide / 2, 320, wide, 54)
    p.text(312, 343, "dead letters", "code")
    p.text(312, 362, "untouched, with reason", "small")
    p.box(760 - wide / 2, 320, 220 + wide, 54, "plain")
    p.text(870, 343, "model bundle", "title")
    p.text(870, 362, "graphs, item tables, vocabulary: named by their hash", "small")
    p.path((760, 320), (760, 274))
    p.path((980, 320), (980, 274))
    return p


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


def _records(times: list[int]) -> Records:
    records = np.zeros(len(times), RECORD)
    records["timestamp_ms"] = times
    return records


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


def times() -> Picture:
    """Freshness, age, and what is stale."""
    p = Picture(1000, 300, "Freshness is from arrival at Kafka to the readable state; age is from arrived_ms to now.")
    at = {"happens": 60, "arrives": 300, "readable": 520, "read": 900}
    p.path((30, 96), (976, 96))
    p.text(976, 126, "time", "small", "end")
    for where, name, field in (
        ("happens", "the user saves a Pin", "timestamp_ms"),
        ("arrives", "Kafka has the event", "arrived_ms"),
        ("readable", "its state is in Redis", "encoded_ms"),
        ("read", "a ranker reads it", "now"),
    ):
        p.path((at[where], 86), (at[where], 106), kind="new-line", arrow=False)
        anchor = "start" if where == "happens" else "middle"
        p.text(at[where] - (30 if where == "happens" else 0), 48, name, "", anchor)
        p.text(at[where] - (30 if where == "happens" else 0), 72, field, "code", anchor)
    p.path((at["arrives"], 152), (at["readable"], 152), kind="new-line")
    p.text(410, 178, "freshness", "title")
    p.text(410, 198, "of the path, for each event", "small")
    p.path((at["arrives"], 228), (at["read"], 228))
    p.text(600, 254, "age", "title")
    p.text(600, 274, "bounds what may be missing; above max_age_ms the row is STALE", "small")
    for where in ("arrives", "readable", "read"):
        p.path((at[where], 108), (at[where], 236), kind="faint", arrow=False)
    return p


def fence() -> Picture:
    """A worker that was paused, and what its late write meets."""
    p = Picture(
        1000,
        296,
        "A paused worker is replaced; when it goes on, Kafka refuses its transaction, and Redis a state of an older offset.",
    )
    for name, y in (("worker A", 60), ("worker B", 132), ("partition 3", 204)):
        p.text(8, y + 5, name, "title", "start")
    p.path((120, 60), (976, 60), kind="faint", arrow=False)
    p.path((120, 132), (976, 132), kind="faint", arrow=False)
    p.box(130, 44, 190, 32, "kept")
    p.text(225, 66, "owns partition 3", "on")
    p.box(326, 44, 330, 32, "process")
    p.text(491, 66, "stopped for longer than its session", "small")
    p.box(662, 44, 150, 32, "bad")
    p.text(737, 66, "goes on, writes", "bad-text")
    p.box(400, 116, 390, 32, "kept")
    p.text(595, 138, "owns partition 3: loads, then writes", "on")
    p.path((240, 78), (240, 186))
    p.text(250, 172, "offset 41", "small", "start")
    p.path((420, 150), (420, 186))
    p.text(430, 172, "InitProducerId: epoch + 1", "small", "start")
    p.path((700, 150), (700, 186))
    p.text(690, 172, "offset 42", "small", "end")
    p.path((802, 78), (802, 186), kind="bad-line")
    p.text(814, 172, "refused: old epoch", "bad-text", "start")
    p.box(120, 190, 856, 28, "data")
    p.text(548, 210, "sequences, partition 3: written by one transactional id", "small")
    p.text(
        120,
        252,
        "Once more in Redis: a state carries the changelog offset that it is of. One script compares and writes,",
        "small",
        "start",
    )
    p.text(120, 274, "so a late write of offset 41 never replaces the state of offset 42.", "small", "start")
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


def logo() -> Picture:
    """Three slots and the one that is new."""
    p = Picture(24, 24, "Slipstream")
    for i, kind in enumerate(("bar", "bar", "bar", "new")):
        p.box(1.5 + 5.4 * i, 13 - 3 * i, 4.2, 9 + 0.6 * i, kind, 1)
    return p


PICTURES: dict[str, Callable[[], Picture]] = {
    "anchor": anchor,
    "architecture": architecture,
    "dcat": dcat,
    "fence": fence,
    "logo": logo,
    "refresh": refresh,
    "sequence": sequence,
    "state": state,
    "times": times,
}

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (IMAGES / f"{name}.svg").write_text(draw().svg())
