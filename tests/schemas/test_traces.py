"""Run: pytest tests/schemas/test_traces.py"""

from __future__ import annotations

import pytest

from schemas.traces import MAX_TRACES, TraceParent, decode_traces, encode_traces, header_of, sampled_parent

TRACE, SPAN = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
W3C = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize("n", [0, 1, MAX_TRACES])
def test_what_is_written_is_read(n: int) -> None:
    parents = [TraceParent(TRACE + i, SPAN + i, b"user-%d" % i if i % 2 else b"") for i in range(n)]
    value = encode_traces(parents)
    assert decode_traces(value) == parents
    assert header_of([("other", b"1"), ("slipstream-traces", value)]) == value


def test_the_layout_is_the_documented_one() -> None:
    value = encode_traces([TraceParent(TRACE, SPAN, b"me")])
    assert value.hex() == "0101" + "0af7651916cd43dd8448eb211c80319c" + "b7ad6b7169203331" + "0002" + b"me".hex()


@pytest.mark.parametrize("value", [None, b"", b"\x01", b"\x02\x00", b"\x01\x01", b"\x01\x00more"])
def test_a_damaged_header_names_nothing(value: bytes | None) -> None:
    assert decode_traces(value) == []


def test_a_cut_header_names_nothing() -> None:
    value = encode_traces([TraceParent(TRACE, SPAN, b"me")] * 2)
    assert all(decode_traces(value[:end]) == [] for end in range(len(value)))


@pytest.mark.parametrize("value", [W3C, W3C.encode(), "cc" + W3C[2:] + "-and-more"])
def test_a_sampled_traceparent(value: str | bytes) -> None:
    assert sampled_parent([("a", None), ("traceparent", value)]) == TraceParent(TRACE, SPAN)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "nonsense",
        b"\xff\xfe",
        W3C[:-1],
        W3C.upper(),
        W3C + "-more",
        "ff" + W3C[2:],
        "00-" + "0" * 32 + W3C[35:],
        W3C[:36] + "0" * 16 + "-01",
        None,
    ],
)
def test_an_unreadable_one_counts_as_none(value: str | bytes | None) -> None:
    assert sampled_parent([("traceparent", value)]) is None


def test_one_that_is_not_sampled_is_respected() -> None:
    assert sampled_parent([("traceparent", W3C[:-1] + "0")]) is False
