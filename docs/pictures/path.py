"""Pictures of the path: its parts, its times, what shuts a paused worker out."""

from __future__ import annotations

from docs.pictures.svg import Picture


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


def logo() -> Picture:
    """Three slots and the one that is new."""
    p = Picture(24, 24, "Slipstream")
    for i, kind in enumerate(("bar", "bar", "bar", "new")):
        p.box(1.5 + 5.4 * i, 13 - 3 * i, 4.2, 9 + 0.6 * i, kind, 1)
    return p
