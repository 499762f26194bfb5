"""Names keep apart what must be apart, and refuse prefixes that Kafka would."""

from __future__ import annotations

import pytest

from schemas.errors import ConfigError
from schemas.names import Names

MODEL = "0123456789abcdef"


def topics(names: Names) -> list[str]:
    return [names.engagements, names.dead_letters, names.batches, names.sequences]


def test_the_names_of_the_default_deployment_never_change() -> None:
    names = Names()
    assert topics(names) == [
        "slipstream.engagements",
        "slipstream.engagements.dead-letters",
        "slipstream.engagement-batches",
        "slipstream.sequences",
    ]
    assert (names.ingest_group, names.sequence_app) == ("slipstream-ingest", "slipstream-sequence")
    assert names.encoder_group(MODEL) == f"slipstream-encoder-{MODEL}"
    assert names.sequence_transactional_ids(7) == ("slipstream-sequences-7-a", "slipstream-sequences-7-b")
    assert names.state_key(MODEL, b"u-17") == b"slipstream:0123456789abcdef:u-17"
    assert names.state_key_pattern(MODEL) == "slipstream:0123456789abcdef:*"
    assert names.progress_key(MODEL, 3) == "slipstream:progress:0123456789abcdef:3"
    assert names.progress_key(MODEL, 3, "17") == "slipstream:progress:0123456789abcdef:3:{17}"
    assert names.progress_key_pattern(MODEL) == "slipstream:progress:0123456789abcdef:*"
    assert names.active_key == "slipstream:active"


@pytest.mark.parametrize("prefix", ["", ".a", "-a", "a b", "a_b", "a:b", "a*", "a/b", "ü", "a\n", "x" * 129])
def test_a_prefix_that_cannot_name_topics_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigError, match="cannot name Kafka topics"):
        Names(prefix)


def test_the_longest_prefix_still_names_topics() -> None:
    assert max(map(len, topics(Names("x" * 128)))) <= 249  # Kafka's limit


def test_two_deployments_share_nothing() -> None:
    a, b = Names("a"), Names("a.engagements")
    assert len({*topics(a), *topics(b)}) == 8
    assert not b.state_key(MODEL, b"u").startswith(a.state_key(MODEL, b""))


def test_a_user_id_is_bytes_and_may_hold_anything() -> None:
    assert Names("p").state_key(MODEL, "東:京 *".encode()) == f"p:{MODEL}:東:京 *".encode()
