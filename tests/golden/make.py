"""Make the golden files: the bytes of every contract, assembled by hand.

    python -m tests.golden.make

It uses nothing of Slipstream, only `struct`, `zlib`, `hashlib` and `json`, and follows the layouts as the docstrings of
schemas/ and docs/state-format.md draw them. So the tests compare two writings of one layout, and not an encoder with itself.
Each `<name>` has a `<name>.expected.json` beside it: what a reader must find in it. tests/schemas/test_golden.py makes them
again and compares; a file that changes is a change of a contract, which needs a new version.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

# A nano model: 2 layers, d_model 64, 2 heads, 1 kv head, so head_dim 32.
LAYERS, D_MODEL, HEADS, KV_HEADS = 2, 64, 2, 1
HEAD_DIM = D_MODEL // HEADS
KV_BYTES = 2 * LAYERS * KV_HEADS * HEAD_DIM
SCALES = 2 * LAYERS * KV_HEADS
# By version of the state.
SLOT_BYTES = {1: 20 + KV_BYTES + 2 * SCALES, 2: 20 + KV_BYTES + SCALES}

Record = tuple[int, int, int, int]  # timestamp_ms, item_id, action, surface

# Sorted. The second and third differ in their surface alone; the last has the greatest values of all fields.
RECORDS: list[Record] = [
    (1767225600000, 4711, 4, 1),
    (1767225600500, 4712, 1, 0),
    (1767225600500, 4712, 1, 2),
    (253402300799999, (1 << 63) - 1, 65535, 65535),
]


def record(fields: Record) -> bytes:
    return struct.pack("<qqHH", *fields)


def records_of(count: int) -> list[Record]:
    """Records of some events that look like life, one a second."""
    return [(1767225600000 + 1000 * i, 1000 + 7 * i, 1 + i % 6, i % 6) for i in range(count)]


def described(records: list[Record]) -> list[dict[str, int]]:
    return [dict(zip(("timestamp_ms", "item_id", "action", "surface"), fields, strict=True)) for fields in records]


def sequence(floor: int, records: list[Record]) -> tuple[bytes, dict[str, Any]]:
    body = struct.pack("<q", floor) + b"".join(map(record, records))
    value = struct.pack("<2sBBI", b"SQ", 1, 0, zlib.crc32(body)) + body
    return value, {"forgotten_before_ms": floor, "records": described(records)}


def batch() -> tuple[bytes, dict[str, Any]]:
    users: list[tuple[str, int, int, list[Record]]] = [
        ("u-17", 1767225600123, 0, RECORDS[:3]),
        ("gone", 1767225600124, 1767225600000, []),
        ("Zoë 東京", 1767225600125, 1767225600400, RECORDS[1:2]),
    ]
    keys = [user.encode() for user, *_ in users]
    body = b"".join(
        (
            b"".join(struct.pack("<q", arrived_ms) for _, arrived_ms, _, _ in users),
            b"".join(struct.pack("<q", floor) for _, _, floor, _ in users),
            b"".join(struct.pack("<I", len(records)) for *_, records in users),
            b"".join(struct.pack("<H", len(key)) for key in keys),
            b"".join(keys),
            b"".join(record(fields) for *_, records in users for fields in records),
        )
    )
    count = sum(len(records) for *_, records in users)
    head = struct.pack("<4sB3xIIII", b"SLPB", 1, len(users), count, sum(map(len, keys)), zlib.crc32(body))
    return head + body, {
        "users": [
            {"user": user, "arrived_ms": arrived_ms, "forgotten_before_ms": floor, "records": described(records)}
            for user, arrived_ms, floor, records in users
        ]
    }


def manifest() -> tuple[bytes, dict[str, Any]]:
    """Field order is part of the format: the model id hashes the JSON."""
    arrays = (
        "items",
        "actions",
        "surfaces",
        "gaps",
        "candidate",
        "catalogue_ids",
        "catalogue_vectors",
        "catalogue_counts",
    )
    files = [f"{graph}.onnx" for graph in ("encode", "append", "cross")] + [f"{array}.npy" for array in arrays]
    content: dict[str, Any] = {
        "format": "slipstream-bundle",
        "version": 3,
        "shape": {
            "layers": LAYERS,
            "d_model": D_MODEL,
            "heads": HEADS,
            "kv_heads": KV_HEADS,
            "context": 256,
            "keep": 192,
            "rows": 16384,
            "dtype": "int8",
        },
        "tables": "fp16",
        "vocabulary": {
            "actions": ["other", "view", "click", "like", "save", "share", "hide"],
            "surfaces": ["other", "home", "search", "related", "profile", "notification"],
        },
        "item_seeds": [11, 22, 33, 44, 55, 66, 77, 88],
        "files": {
            name: {"sha256": hashlib.sha256(name.encode()).hexdigest(), "bytes": 1000 + len(name)}
            for name in sorted(files)
        },
        "training": {"log": "made up", "steps": 1200},
        "metrics": {"hit_rate_at_10": 0.125},
    }
    compact = json.dumps({key: content[key] for key in sorted(content)}, separators=(",", ":"))
    model_id = hashlib.sha256(compact.encode()).hexdigest()[:16]
    ordered = {"format": content.pop("format"), "version": content.pop("version"), "model_id": model_id, **content}
    return json.dumps(ordered, indent=2).encode(), {"model_id": model_id, "d_model": D_MODEL, "layers": LAYERS}


MODEL_ID = manifest()[1]["model_id"]
EMBEDDING = [0.125 if i % 3 else -0.125 for i in range(D_MODEL)]  # exact in fp16, and of unit length
TOPIC_ID = bytes(range(16, 32))


def slot(index: int, event: Record, version: int) -> tuple[bytes, dict[str, Any]]:
    kv = [(37 * i + 11 * index) % 255 - 127 for i in range(KV_BYTES)]
    codes = [(97 * i + 15 * index) % 256 for i in range(SCALES)]
    scales = [(1 + code % 16 / 16) * 2.0 ** (code // 16 - 14) for code in codes]
    tail = bytes(codes) if version == 2 else struct.pack(f"<{SCALES}e", *scales)
    value = record(event) + struct.pack(f"<{KV_BYTES}b", *kv) + tail
    return value, {"event": described([event])[0], "kv": kv, "scales": scales}


def state(
    kind: int, events: list[Record], capacity: int, slack: bytes = b"\0", offset: int = 123456789, version: int = 2
) -> tuple[bytes, dict[str, Any]]:
    made = [slot(i, event, version) for i, event in enumerate(events)]
    slots = b"".join(value for value, _ in made)
    embedding = EMBEDDING if kind == 1 else []
    header: dict[str, Any] = {
        "kind": kind,
        "header_bytes": 128 + 2 * len(embedding),
        "model_id": MODEL_ID,
        "revision": "0102030405060708",
        "topic_id": TOPIC_ID.hex(),
        "offset": offset,
        "partition": 7,
        "length": len(events),
        "capacity": capacity,
        "layers": LAYERS,
        "kv_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "embedding_dim": len(embedding),
        "slot_bytes": SLOT_BYTES[version],
        "dtype": version,
        "newest_event_ms": events[-1][0] if events else 0,
        "arrived_ms": 1767225700000,
        "encoded_ms": 1767225700012,
        "slots_crc": zlib.crc32(slots),
    }
    fixed = struct.pack("<4sBBH", b"SLPS", version, kind, header["header_bytes"])
    fixed += bytes.fromhex(MODEL_ID) + bytes.fromhex(header["revision"]) + TOPIC_ID
    fixed += struct.pack("<qI", offset, 7)
    fixed += struct.pack("<HHHHHH", len(events), capacity, LAYERS, KV_HEADS, HEAD_DIM, len(embedding))
    fixed += struct.pack("<IB3x", SLOT_BYTES[version], version)
    fixed += struct.pack("<qqq", header["newest_event_ms"], header["arrived_ms"], header["encoded_ms"])
    fixed += struct.pack("<I24x", header["slots_crc"])
    tail = struct.pack(f"<{len(embedding)}e", *embedding)
    value = fixed + struct.pack("<I", zlib.crc32(fixed + tail)) + tail + slots
    value += slack * (SLOT_BYTES[version] * (capacity - len(events)))
    return value, {"header": header, "embedding": embedding, "slots": [description for _, description in made]}


def golden() -> dict[str, tuple[bytes, dict[str, Any]]]:
    """Name of the file -> its bytes and what a reader must find in it."""
    return {
        "record.bin": (b"".join(map(record, RECORDS)), {"records": described(RECORDS)}),
        "sequence.bin": sequence(0, RECORDS),
        "sequence-raised-floor.bin": sequence(1767225600000, RECORDS[1:3]),
        "sequence-forgotten.bin": sequence(1767225600500, []),
        "batch.bin": batch(),
        "manifest.json": manifest(),
        "state.bin": state(1, records_of(3), 16),
        "state-full-step.bin": state(1, records_of(16), 16, offset=123456790),
        "state-slack.bin": state(1, records_of(17), 32, slack=b"\xa5", offset=123456791),
        "state-deleted.bin": state(2, [], 0, offset=123456792),
        "state-version-1.bin": state(1, records_of(3), 16, version=1),
    }


def expected_json(description: dict[str, Any]) -> bytes:
    return (json.dumps(description, ensure_ascii=False, separators=(",", ":")) + "\n").encode()


def main() -> None:
    for name, (value, description) in golden().items():
        (HERE / name).write_bytes(value)
        (HERE / f"{name}.expected.json").write_bytes(expected_json(description))


if __name__ == "__main__":
    main()
