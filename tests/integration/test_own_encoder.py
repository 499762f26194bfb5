"""examples/own-encoder: a bundle of another architecture in an encoder's process, on real Kafka and Redis, and in a ranker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from encoder.bundle import load_bundle
from encoder.runtime import Runtime
from ranker import Dcat, Request, StateReader
from ranker.rank import Catalogue, rank_row
from schemas.bundle import ModelShape
from schemas.sequence import Records
from tests.bundles import random_bundle
from tests.documents import ROOT
from tests.encoder.histories import events
from tests.encoder.models import Model
from tests.integration.encoding import Changelog, encoder

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

EXAMPLE = ROOT / "examples" / "own-encoder"
#: Small windows, so that they are anchored anew.
TRAINED = ModelShape(layers=1, d_model=32, heads=2, kv_heads=1, context=24, keep=18, rows=512)
USERS, DECAY = 12, 0.9


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Model:
    directory = tmp_path_factory.mktemp("own")
    random_bundle(directory / "trained", TRAINED)
    command = [sys.executable, "make_bundle.py", str(directory / "trained"), str(directory / "bag")]
    done = subprocess.run(command, cwd=EXAMPLE, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    bundle = load_bundle(directory / "bag")
    assert done.stdout.strip() == bundle.model_id
    return Model(bundle, Runtime(bundle))


def test_states_are_exact_and_rank(bag: Model, changelog: Changelog, redis_url: str, tmp_path: Path) -> None:
    history = {b"user-%d" % i: events(range(1000, 1000 * (i + 3), 1000), seed=i) for i in range(USERS)}
    with encoder(bag, changelog, redis_url, tmp_path / "log"):
        for last in range(20):
            changelog.write(history)
            changelog.wait_for(bag)
            history = {user: grown(records, user, last) for user, records in history.items()}
        changelog.write(history)
        changelog.wait_for(bag)
    assert changelog.mismatches(bag, redis_url) == []

    rows = StateReader(redis_url, bag.bundle, changelog.names).read([user.decode() for user in history])
    dcat, catalogue = Dcat.of(bag.bundle), Catalogue.of(bag.bundle)
    for row, records in zip(rows, history.values(), strict=True):
        assert row.state is not None
        assert row.embedding is not None
        assert row.state.events.tobytes() == records[-row.length :].tobytes()
        tokens = bag.bundle.features.items(row.state.events["item_id"].astype(np.int64))  # (n, d)
        wanted = (DECAY ** np.arange(len(tokens))[::-1]) @ tokens
        cosine = row.embedding @ wanted / np.linalg.norm(wanted)
        assert cosine > 0.999, f"{row.user}: {cosine}"
        (scores,) = dcat.score([Request(row, catalogue.ids)])
        np.testing.assert_allclose(scores.score, 8 * catalogue.vectors @ row.embedding, atol=0.05)
        best = rank_row(row, dcat, catalogue, k=5).items
        assert [item.score for item in best] == sorted((item.score for item in best), reverse=True)
    assert {row.length for row in rows} >= {23, 22}, "windows of several lengths, past an anchoring"


def grown(records: Records, user: bytes, step: int) -> Records:
    """An event more, now and then a late one."""
    newest = int(records["timestamp_ms"][-1])
    at = newest - 1500 if step % 7 == 3 else newest + 1000
    more = np.concatenate([records, events([at], seed=1000 * step + int(user[5:]))])
    return more[np.argsort(more["timestamp_ms"], kind="stable")]
