"""Vocabularies: codes are positions, so they only ever grow."""

from __future__ import annotations

import pytest

from schemas.errors import ConfigError
from schemas.vocabulary import DEFAULT_ACTIONS, Vocabulary


def test_codes_are_positions() -> None:
    vocabulary = Vocabulary()
    assert vocabulary.action_codes == {
        "other": 0, "view": 1, "click": 2, "like": 3, "save": 4, "share": 5, "hide": 6,
    }  # fmt: skip
    assert vocabulary.surface_codes == {
        "other": 0, "home": 1, "search": 2, "related": 3, "profile": 4, "notification": 5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("actions", "says"),
    [
        ((), "must begin with 'other'"),
        (("view",), "must begin with 'other'"),
        (("view", "other"), "must begin with 'other'"),
        (("other", "view", "view"), "must be distinct"),
        (("other", ""), "not empty"),
        (("other", *map(str, range(65536))), "65537 names, a record can tell 65536 apart"),
    ],
)
def test_a_vocabulary_that_codes_cannot_tell_apart_is_refused(actions: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Vocabulary(actions=actions)
    with pytest.raises(ConfigError, match=says):
        Vocabulary(surfaces=actions)


def test_a_vocabulary_may_grow_at_its_end() -> None:
    Vocabulary().require_prefix_of(Vocabulary(actions=(*DEFAULT_ACTIONS, "follow")), "settings")
    Vocabulary().require_prefix_of(Vocabulary(), "settings")


@pytest.mark.parametrize("newer", [DEFAULT_ACTIONS[:-1], ("other", "follow", *DEFAULT_ACTIONS[1:])])
def test_a_code_that_changes_its_meaning_is_refused(newer: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"settings: actions are .* only be added at the end"):
        Vocabulary().require_prefix_of(Vocabulary(actions=newer), "settings")
