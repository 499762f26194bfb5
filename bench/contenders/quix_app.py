"""Quix Streams: each user's newest events in its state, as packed bytes, which is the fastest form that it has.

No validation, no order, no duplicates removed, no fencing: less than Slipstream's job. Runs in a virtual environment of its own,
since it needs an older confluent-kafka (quix.txt).
"""

import struct
import sys

from quixstreams import Application

BROKER, GROUP, TOPIC, STATE_DIR, PARTITIONS = sys.argv[1:6]
CAPACITY_BYTES = 256 * 20
FULL = bytes(CAPACITY_BYTES)  # so that from the first event on a user has a full sequence

app = Application(
    broker_address=BROKER, consumer_group=GROUP, auto_offset_reset="earliest", state_dir=STATE_DIR, loglevel="WARNING"
)
codes = {name: code for code, name in enumerate(("other", "view", "click", "like", "save", "share", "hide"))}
surfaces = {name: code for code, name in enumerate(("other", "home", "search", "related", "profile", "notification"))}
pack = struct.Struct("<qqHH").pack


def apply(event, state):
    record = pack(event["timestamp_ms"], event["item_id"], codes[event["action"]], surfaces[event["surface"]])
    state.set_bytes("sequence", (state.get_bytes("sequence", FULL) + record)[-CAPACITY_BYTES:])


app.dataframe(app.topic(TOPIC, value_deserializer="json")).update(apply, stateful=True)

if __name__ == "__main__":
    app.run()
