"""Feast: each user's embedding as a feature in its Redis online store, read again and again.

    python feast_app.py HOST:PORT DIRECTORY USERS WIDTH

Writes USERS embeddings of WIDTH floats and says "ready". Then each line "USERS CALLS" on stdin is answered by one JSON line: the
seconds that each of CALLS reads of the first USERS took. Runs in a virtual environment of its own (feast.txt).
"""

import json
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

os.environ["FEAST_USAGE"] = "False"

import numpy as np
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Array, Float32

ADDRESS, DIRECTORY, USERS, WIDTH = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])

store = FeatureStore(
    config=RepoConfig(
        project="bench",
        provider="local",
        registry=str(DIRECTORY / "registry.db"),
        online_store={"type": "redis", "connection_string": ADDRESS},
        entity_key_serialization_version=3,
    )
)
user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
view = FeatureView(
    name="embeddings",
    entities=[user],
    ttl=timedelta(days=1),
    schema=[Field(name="embedding", dtype=Array(Float32))],
    source=FileSource(path=str(DIRECTORY / "none.parquet"), timestamp_field="event_timestamp"),
    online=True,
)
store.apply([user, view])
names = [f"u{i}" for i in range(USERS)]
embeddings = np.random.default_rng(0).standard_normal((USERS, WIDTH), np.float32)
now = datetime.now(UTC)
store.write_to_online_store(
    "embeddings", pd.DataFrame({"user_id": names, "embedding": list(embeddings), "event_timestamp": now})
)


def read(users):
    rows = [{"user_id": name} for name in names[:users]]
    return store.get_online_features(features=["embeddings:embedding"], entity_rows=rows)


np.testing.assert_array_equal(np.array(read(USERS).to_dict()["embedding"], np.float32), embeddings)
print("ready", flush=True)
for line in sys.stdin:
    users, calls = map(int, line.split())
    taken = []
    for _ in range(calls):
        began = time.perf_counter()
        read(users)
        taken.append(time.perf_counter() - began)
    print(json.dumps(taken), flush=True)
