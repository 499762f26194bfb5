"""MovieLens by name: the published counts, and the properties that the tie rule promises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from schemas.errors import ConfigError, LogError, PrerequisiteError
from schemas.log import EventLog
from schemas.vocabulary import Vocabulary
from stream import movielens
from stream.movielens import read_movielens


@pytest.fixture(scope="module")
def ml_100k() -> EventLog:
    return read_movielens("ml-100k", Vocabulary())


def assert_ascending(log: EventLog) -> None:
    timestamp_ms = log.records["timestamp_ms"]
    assert (np.diff(timestamp_ms) >= 0).all()
    by_user = np.lexsort((timestamp_ms, log.user_index))
    same_user = np.diff(log.user_index[by_user]) == 0
    assert (np.diff(timestamp_ms[by_user])[same_user] > 0).all(), "a user's timestamps must strictly ascend"


def test_ml_100k_is_whole(ml_100k: EventLog) -> None:
    assert len(ml_100k) == 100_000
    assert len(ml_100k.users) == len(set(ml_100k.users)) == 943
    assert sorted(map(int, ml_100k.users)) == list(range(1, 944))
    assert len(np.unique(ml_100k.records["item_id"])) == 1682
    assert_ascending(ml_100k)


def test_ratings_become_actions(ml_100k: EventLog) -> None:
    # The counts of ratings 1 to 5 in the data set's own README: 6110, 11370, 27145, 34174, 21201.
    names = np.array(ml_100k.vocabulary.actions)[ml_100k.records["action"]]
    counts = dict(zip(*(column.tolist() for column in np.unique(names, return_counts=True)), strict=True))
    assert counts == {"hide": 6110 + 11370, "view": 27145, "like": 34174, "save": 21201}
    assert set(ml_100k.records["surface"].tolist()) == {ml_100k.vocabulary.surface_codes["home"]}


def test_ml_1m_is_train_and_test_together() -> None:
    log = read_movielens("ml-1m", Vocabulary())
    assert (len(log), len(log.users), len(np.unique(log.records["item_id"]))) == (1_000_209, 6_040, 3_706)
    assert_ascending(log)


def test_times_move_by_less_than_a_second_of_ties(ml_100k: EventLog) -> None:
    # 874724710 and 893286638 are the first and last seconds of the file; at most ten events of a user share one.
    timestamp_ms = ml_100k.records["timestamp_ms"]
    assert timestamp_ms[0] == 874_724_710_000
    assert timestamp_ms[-1] // 1000 == 893_286_638
    assert (timestamp_ms % 1000).max() < 10


def test_the_order_of_ties_is_the_seeds_alone(ml_100k: EventLog) -> None:
    again, other = read_movielens("ml-100k", Vocabulary()), read_movielens("ml-100k", Vocabulary(), seed=7)
    assert again.records.tobytes() == ml_100k.records.tobytes()
    assert again.user_index.tobytes() == ml_100k.user_index.tobytes()
    assert other.records.tobytes() != ml_100k.records.tobytes()
    assert_ascending(other)
    # Only ties moved: second by second, the same events of the same users.
    assert seconds(other) == seconds(ml_100k)


def seconds(log: EventLog) -> list[tuple[int, int, int]]:
    columns = (log.records["timestamp_ms"] // 1000, log.user_index, log.records["item_id"])
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


def test_item_ids_do_not_order_ties(ml_100k: EventLog) -> None:
    """The site's listing leaks through ids that ascend; among ties, half of the pairs must descend."""
    by_user = np.lexsort((ml_100k.records["timestamp_ms"], ml_100k.user_index))
    second, item = ml_100k.records["timestamp_ms"][by_user] // 1000, ml_100k.records["item_id"][by_user]
    tied = (np.diff(ml_100k.user_index[by_user]) == 0) & (np.diff(second) == 0)
    assert tied.sum() > 40_000
    ascending = (np.diff(item)[tied] > 0).mean()
    assert 0.48 < ascending < 0.52, f"{ascending:.3f} of the ties ascend by item id"


def test_a_missing_wheel_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(movielens, "find_spec", lambda name: None)
    with pytest.raises(PrerequisiteError, match=r"slipstream-embeddings\[movielens\]"):
        read_movielens("ml-100k", Vocabulary())


def test_a_vocabulary_without_its_actions_is_refused() -> None:
    with pytest.raises(ConfigError, match="'hide'"):
        read_movielens("ml-100k", Vocabulary(actions=("other", "view", "like", "save")))


@pytest.mark.parametrize("text", ["1\t2\t3\n", "1\t2\t6\t4\n", "a\tb\tc\td\n"])
def test_files_of_another_shape_are_refused(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ml-100k.rating").write_text(text)
    monkeypatch.setattr(movielens, "_paths", lambda name: [tmp_path / "ml-100k.rating"])
    with pytest.raises(LogError, match=r"ml-100k\.rating"):
        read_movielens("ml-100k", Vocabulary())
