"""The smallest ranker: users and candidates by their string ids in, candidates in order out.

Run: python rank.py USER... It reads slipstream.toml, the model in var/model, and the users' states in Redis.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from encoder.bundle import load_bundle
from ranker import Dcat, Request, StateReader
from schemas.event import hash_item_id
from slipstream.settings import load_settings
from slipstream.stack import current

settings = load_settings(None, {})
stack = current(settings.data_dir)  # what `slipstream up` started; in production, set redis_url
redis_url = settings.redis_url.get_secret_value() if settings.redis_url else stack.redis_url if stack else ""

bundle = load_bundle(settings.bundle_dir)
# A service would rather do without a state than wait: there the default, 100 ms for a call, or less.
reader, dcat = StateReader(redis_url, bundle, settings.names, deadline_ms=10_000), Dcat.of(bundle)

# Your retrieval stage's candidates; here, all items.
names = Path("items.txt").read_text().split()
candidates = np.array([hash_item_id(name) for name in names])

rows = reader.read(sys.argv[1:])
scores = dcat.score([Request(row, candidates) for row in rows])  # a user without a state is scored without one
for row, of_row in zip(rows, scores, strict=True):
    best = [names[i] for i in np.argsort(-of_row.score)[:3]]
    print(f"{row.user}: {row.status}, {row.length} events, {row.age_ms} ms old: {', '.join(best)}")
