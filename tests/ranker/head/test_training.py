"""Training: a log whose next item only the state tells, and what each switch switches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ranker.head.config import Fusion, RankerConfig
from ranker.head.evaluate import choose, figures, scores
from ranker.head.model import Ranker
from ranker.head.requests import Requests
from ranker.head.training import Progress, train_ranker
from schemas.errors import ConfigError
from slipstream.ranker_training import make_requests, new_ranker
from tests.ranker.head.conftest import SAVE, Circle

CONFIG = RankerConfig(
    max_steps=40, max_seconds=None, batch_tokens=256, positions=8, sampled=4, width=16, threads=1, eval_sampled=20,
    warmup_steps=5, learning_rate=0.01, random_candidates=0.0, age_dropout=(), device="cpu",
)  # fmt: skip


def trained(
    circle: Circle, config: RankerConfig, content: np.ndarray | None = None
) -> tuple[Ranker, Requests, list[Progress]]:
    requests = make_requests(circle.split, circle.checkpoint, (SAVE,), content)
    ranker = new_ranker(circle.checkpoint, config, (SAVE,), content)
    told: list[Progress] = []
    last = train_ranker(ranker, requests, config, told.append)
    assert told[-1] == last
    return ranker, requests, told


def hr3(circle: Circle, ranker: Ranker, requests: Requests, states: bool = True) -> float:
    chosen = choose(circle.split, requests, 200, CONFIG.eval_sampled, 0)
    return figures(circle.split, chosen, scores(ranker, requests, chosen, states), [SAVE])["hr3_save"]


@pytest.mark.parametrize("fusion", ["early", "both"])
def test_who_knows_the_state_knows_what_comes_next(circle: Circle, fusion: Fusion) -> None:
    ranker, requests, told = trained(circle, replace(CONFIG, fusion=fusion))
    assert (told[-1].step, told[-1].share) == (40, 1.0)
    known, unknown = hr3(circle, ranker, requests), hr3(circle, ranker, requests, states=False)
    print(known, unknown)
    assert known > 0.7
    assert unknown < known - 0.2


def test_without_fusion_there_is_nothing_to_know(circle: Circle) -> None:
    ranker, requests, _ = trained(circle, replace(CONFIG, fusion="none"))
    assert hr3(circle, ranker, requests) < 0.6


def test_the_same_seed_trains_the_same_ranker(circle: Circle) -> None:
    config = replace(CONFIG, max_steps=3, random_candidates=0.3, age_dropout=((7.0, 0.5),), dropout=0.0)
    one, two = (trained(circle, config)[0].state_dict() for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    other = trained(circle, replace(config, seed=1))[0].state_dict()
    assert not torch.equal(one["head.tasks.weight"], other["head.tasks.weight"])


def test_a_rate_of_zero_leaves_the_pinfm_as_it_was(circle: Circle) -> None:
    ranker, _, _ = trained(circle, replace(CONFIG, max_steps=3, module_rate=0.0))
    after = ranker.weights()[0]
    assert all(np.array_equal(value, after[name]) for name, value in circle.checkpoint.weights.items())


def test_logits_do_not_depend_on_who_shares_the_batch(circle: Circle) -> None:
    content = np.random.default_rng(0).random((len(circle.split.data.item_ids), 4)).astype(np.float32)
    ranker, requests, _ = trained(circle, replace(CONFIG, max_steps=2), content)
    chosen = choose(circle.split, requests, 60, 5, 0)
    together = scores(ranker, requests, chosen)
    for i in (0, 17, 59):
        alone = scores(ranker, requests, type(chosen)(chosen.events[i : i + 1], chosen.sampled[i : i + 1]))
        np.testing.assert_allclose(alone[0], together[i], atol=1e-5)


def test_a_diverged_training_says_so(circle: Circle) -> None:
    with pytest.raises(ConfigError, match="diverged"):
        trained(circle, replace(CONFIG, max_steps=20, learning_rate=1e30))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"fusion": "middle"}, "fusion"),
        ({"tasks": ()}, "tasks"),
        ({"tasks": ("save", "save")}, "tasks"),
        ({"age_dropout": ((28.0, 0.5), (7.0, 0.7))}, "age_dropout"),
        ({"sampled": -1, "width": 0}, "width.*sampled"),
        ({"max_steps": None, "max_seconds": None}, "never ends"),
    ],
)
def test_settings_out_of_range_are_named(values: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        RankerConfig(**values)  # type: ignore[arg-type]
