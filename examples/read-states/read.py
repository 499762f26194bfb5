"""Read states and score candidates: python read.py USER... The settings say where Redis and the bundle are."""

from __future__ import annotations

import sys

from encoder.bundle import load_bundle
from ranker import Dcat, Request, StateReader
from schemas.errors import UnavailableError
from slipstream.settings import load_settings

settings = load_settings(None, {})
assert settings.redis_url is not None, "set SLIPSTREAM_REDIS_URL"
bundle = load_bundle(settings.bundle_dir)
reader = StateReader(settings.redis_url.get_secret_value(), bundle, settings.names, deadline_ms=1000)
dcat = Dcat.of(bundle)
candidates = bundle.catalogue_ids[:5]  # in a service: what retrieval found

try:
    rows = reader.read(sys.argv[1:], max_age_ms=60_000)  # one round trip, one row a user
except UnavailableError as error:
    sys.exit(f"rank by popularity meanwhile: {error}")

for row, scores in zip(rows, dcat.score([Request(row, candidates) for row in rows]), strict=True):
    best = candidates[scores.score.argmax()]
    print(f"{row.user}: {row.status}, {row.length} events, {row.age_ms} ms old; best of {len(candidates)}: {best}")
