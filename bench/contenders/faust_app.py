"""Stock Faust: a table of each user's newest events, one write per event, as its documentation shows it.

No validation, no order, no duplicates removed, no fencing: less than Slipstream's job.
"""

import struct
import sys

import faust
import msgspec

BROKER, GROUP, TOPIC, STATE_DIR, PARTITIONS = sys.argv[1:6]
CAPACITY_BYTES = 256 * 20
FULL = bytes(CAPACITY_BYTES)  # so that from the first event on a user has a full sequence

app = faust.App(
    GROUP,
    broker=f"kafka://{BROKER}",
    store="memory://",
    datadir=STATE_DIR,
    topic_partitions=int(PARTITIONS),
    topic_replication_factor=1,
    consumer_auto_offset_reset="earliest",
    web_enabled=False,
)
engagements = app.topic(TOPIC, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")
sequences = app.Table("sequences", key_type=bytes, value_type=bytes, default=lambda: FULL)
codes = {name: code for code, name in enumerate(("other", "view", "click", "like", "save", "share", "hide"))}
surfaces = {name: code for code, name in enumerate(("other", "home", "search", "related", "profile", "notification"))}
decode = msgspec.json.decode
pack = struct.Struct("<qqHH").pack


@app.agent(engagements)
async def apply(stream):
    async for key, value in stream.items():
        event = decode(value)
        record = pack(event["timestamp_ms"], event["item_id"], codes[event["action"]], surfaces[event["surface"]])
        sequences[key] = (sequences[key] + record)[-CAPACITY_BYTES:]


if __name__ == "__main__":
    app.worker_init()
    faust.Worker(app, loglevel="WARNING").execute_from_commandline()
