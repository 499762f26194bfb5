"""A ranker that lives through a roll-over: python serve.py USERS_FILE BUNDLE...

It ranks for one user after the other with the active model's bundle, one of those given, and changes over between two requests.
SIGTERM ends it; then it prints what it answered by which model.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections import Counter
from itertools import cycle
from pathlib import Path

from encoder.bundle import Bundle, load_bundle
from ranker import Dcat, StateReader
from ranker.rank import Catalogue, rank_row
from schemas.errors import ConfigError
from schemas.names import Names
from slipstream.settings import load_settings
from slipstream.stack import current

PAUSE_S = 0.02
DEADLINE_MS = 10_000


class Serving:
    """All that belongs to one model, together: what is replaced is this, never a part of it."""

    def __init__(self, bundle: Bundle, redis_url: str, names: Names) -> None:
        self.model_id = bundle.model_id
        self.reader = StateReader(redis_url, bundle, names, deadline_ms=DEADLINE_MS)
        self.dcat, self.catalogue = Dcat.of(bundle), Catalogue.of(bundle)

    @property
    def is_active(self) -> bool:
        try:
            self.reader.require_active()
        except ConfigError:
            return False
        return True


def main(users_file: str, *directories: str) -> None:
    settings = load_settings(None, {})
    stack = current(settings.data_dir)
    redis_url = settings.redis_url.get_secret_value() if settings.redis_url else stack.redis_url if stack else ""
    users = Path(users_file).read_text().split()
    # Loaded before they are needed: a bundle takes a moment, and requests do not wait.
    models = [Serving(load_bundle(directory), redis_url, settings.names) for directory in directories]

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    answered: Counter[str] = Counter()
    without_state: Counter[str] = Counter()
    serving = models[0]
    for user in cycle(users):
        if stop.wait(PAUSE_S):
            break
        if not serving.is_active:
            active = next((model for model in models if model.is_active), None)
            if active is None:
                continue  # none of ours yet: in a service, rank by popularity meanwhile
            serving = active
            print(f"ranks with model {serving.model_id}", flush=True)
        (row,) = serving.reader.read([user])
        ranking = rank_row(row, serving.dcat, serving.catalogue)  # raises if the state were another model's
        answered[serving.model_id] += 1
        without_state[serving.model_id] += ranking.retrieval != "embedding"
    print(json.dumps({"answered": answered, "without_state": without_state}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
