"""Compare the states of two deployments, user by user. Run: python compare.py OTHER_PREFIX

The replayed deployment is the one of the settings (SLIPSTREAM_PREFIX); OTHER_PREFIX, production, has seen more than it. So
what is asked of each user of the replay: up to the newest event that it knows, do the other's events end with the same ones?
"""

from __future__ import annotations

import sys

from edge.kafka import KafkaConfig
from encoder.bundle import load_bundle
from ranker import StateReader
from ranker.rows import Row
from schemas.names import Names
from slipstream.settings import load_settings
from stream.oracle import read_sequences

BATCH = 200
SHOWN = 3


def difference(ours: Row, theirs: Row) -> str:
    """What is different; empty: nothing."""
    if ours.state is None:
        return ""  # forgotten within the hour, or `verify` says what is wrong
    if theirs.state is None:
        return f"no state there: {theirs.status} {theirs.why}"
    events, others = ours.state.events, theirs.state.events
    others = others[others["timestamp_ms"] <= events["timestamp_ms"][-1]]
    both = min(len(events), len(others))
    if both and events[-both:].tobytes() == others[-both:].tobytes():
        return ""
    missing = [event for event in events.tolist() if event not in set(others.tolist())]
    more = [event for event in others.tolist()[-both:] if event not in set(events.tolist())]
    return f"events that it lacks: {missing[-SHOWN:]}; that it has more: {more[-SHOWN:]}"


def main() -> int:
    settings = load_settings(None, {})
    if settings.redis_url is None or settings.kafka_bootstrap is None:
        print("set SLIPSTREAM_KAFKA_BOOTSTRAP and SLIPSTREAM_REDIS_URL", file=sys.stderr)
        return 2
    bundle = load_bundle(settings.bundle_dir)
    redis_url = settings.redis_url.get_secret_value()
    kafka = KafkaConfig(settings.kafka_bootstrap, settings.kafka_options)
    users = [user.decode() for user in read_sequences(kafka, settings.names).sequences]
    replayed = StateReader(redis_url, bundle, settings.names, deadline_ms=10_000)
    other = StateReader(redis_url, bundle, Names(sys.argv[1]), deadline_ms=10_000)
    differ = 0
    for start in range(0, len(users), BATCH):
        batch = users[start : start + BATCH]
        for ours, theirs in zip(replayed.read(batch), other.read(batch), strict=True):
            if what := difference(ours, theirs):
                differ += 1
                print(f"{ours.user}: {what}")
    print(f"{len(users)} users compared, {differ} differ")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main())
