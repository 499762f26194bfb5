from __future__ import annotations

from pathlib import Path

import pytest

from schemas.errors import ConfigError, LogError, SlipstreamError
from schemas.event import hash_item_id
from schemas.state import decode_state
from slipstream.watch.titles import read_titles
from slipstream.watch.user import SHOWN_EVENTS, Shelf, model_note
from tests.bundles import random_bundle
from tests.ranker.states import made_state


def test_events_come_newest_first_with_titles_and_what_is_new(tmp_path: Path) -> None:
    bundle = random_bundle(tmp_path / "model")
    state = decode_state(made_state(1, length=120, layout=bundle.layout), bundle.layout)
    assert state is not None
    newest = int(state.events["item_id"][-1])
    shelf = Shelf(bundle, bundle.manifest.vocabulary, {newest: "Moss armchair"})
    shown = shelf.events(state.events, state.events[:-1])
    assert len(shown) == SHOWN_EVENTS
    assert (shown[0].item_id, shown[0].title, shown[0].new) == (str(newest), "Moss armchair", True)
    assert not any(event.new for event in shown[1:])
    assert not any(event.new for event in shelf.events(state.events, None)), (
        "the first look has nothing to compare with"
    )
    assert shown[0].timestamp_ms > shown[-1].timestamp_ms
    assert model_note(bundle, bundle.model_id) == ""
    assert bundle.model_id in model_note(bundle, "f" * 16)
    scores = [score for _, score in shelf.best(state)]
    assert scores == sorted(scores, reverse=True)


def test_a_watch_without_a_model_says_so() -> None:
    assert "SLIPSTREAM_BUNDLE" in model_note(None, "f" * 16)
    assert "no model is active" in model_note(None, None)


def test_titles_are_found_by_number_and_by_string(tmp_path: Path) -> None:
    file = tmp_path / "items.csv"
    file.write_text('title,item_id\n"Rug, red",17\n<b>Lamp</b>,pin-9\n', encoding="utf-8")
    assert read_titles(file) == {
        17: "Rug, red",
        hash_item_id("17"): "Rug, red",
        hash_item_id("pin-9"): "<b>Lamp</b>",
    }


@pytest.mark.parametrize(
    ("name", "content", "error", "said"),
    [
        ("items.doc", b"", ConfigError, "items.doc"),
        ("items.csv", b"item_id,name\n1,a\n", LogError, "no column title"),
        ("items.tsv", b"item_id\ttitle\n1\ta\n2\n", LogError, "line 3"),
        ("items.csv", b"item_id,title\n1,\xff\n", LogError, "UTF-8"),
        ("items.csv", None, LogError, "No such file"),
    ],
)
def test_titles_that_cannot_be_read(
    tmp_path: Path, name: str, content: bytes | None, error: type[SlipstreamError], said: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=said):
        read_titles(tmp_path / name)
