"""How a trace goes with an event: a W3C `traceparent` on the raw message, then a header of ours on the packed batch and the
changelog record.

`slipstream-traces`, version 1, big endian as W3C has it:

    offset  bytes
    0       1     version
    1       1     n, at most 16
    2       n x:
            16    trace id
            8     span id of the span that sent the message: the parent of the next stage's
            2     bytes of the user's key, u16; 0 in a changelog record, whose key is the user
            k     the user's key

Only traced events are named, all of them sampled. A header that cannot be read costs a trace, never an event.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

HEADER_TRACEPARENT = "traceparent"
HEADER_TRACES = "slipstream-traces"
#: Of a message. What a batch holds beyond is not traced any further: the header stays small beside the message.
MAX_TRACES = 16

#: A message's headers, as confluent-kafka and aiokafka give them.
Headers = Iterable[tuple[str, str | bytes | None]]

_VERSION = 1
_ENTRY = struct.Struct(">16s8sH")
_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class TraceParent(NamedTuple):
    """A span of another process, the parent of the next one. `user` is empty where the message's key names the user."""

    trace_id: int
    span_id: int
    user: bytes = b""


def encode_traces(parents: Sequence[TraceParent]) -> bytes:
    """The header's value. At most MAX_TRACES parents."""
    assert len(parents) <= MAX_TRACES
    entries = [
        _ENTRY.pack(parent.trace_id.to_bytes(16), parent.span_id.to_bytes(8), len(parent.user)) + parent.user
        for parent in parents
    ]
    return bytes((_VERSION, len(parents))) + b"".join(entries)


def decode_traces(value: bytes | None) -> list[TraceParent]:
    """The inverse; empty if there is none, or it cannot be read."""
    if value is None or len(value) < 2 or value[0] != _VERSION:
        return []
    parents, at = [], 2
    for _ in range(value[1]):
        if len(value) < at + _ENTRY.size:
            return []
        trace_id, span_id, user_bytes = _ENTRY.unpack_from(value, at)
        at += _ENTRY.size
        parents.append(TraceParent(int.from_bytes(trace_id), int.from_bytes(span_id), value[at : at + user_bytes]))
        at += user_bytes
    return parents if at == len(value) else []


def header_of(headers: Headers | None) -> bytes | None:
    """The value of `slipstream-traces` among a message's headers."""
    for name, value in headers or ():
        if name == HEADER_TRACES and isinstance(value, bytes):
            return value
    return None


def sampled_parent(headers: Headers) -> TraceParent | bool | None:
    """What a raw message's `traceparent` says: the parent; False: its producer does not sample it; None: it says nothing that
    can be read (https://www.w3.org/TR/trace-context/#traceparent-header)."""
    for name, value in headers:
        if name.lower() != HEADER_TRACEPARENT or value is None:
            continue
        found = _TRACEPARENT.fullmatch(value.encode(errors="replace") if isinstance(value, str) else value)
        if found is None or found[1] == b"ff" or (found[1] == b"00" and found[5]):
            return None
        if not int(found[4], 16) & 1:
            return False
        trace_id, span_id = int(found[2], 16), int(found[3], 16)
        return TraceParent(trace_id, span_id) if trace_id and span_id else None
    return None
