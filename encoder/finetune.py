"""Fine-tuning a PinFM together with a ranker: the candidate crosses the context, the ranker's losses train both (early fusion).

Source: arXiv 2507.12704, as far as it is public; choices of our own are marked *. Each part is a switch of FineTuneConfig:

    candidate id randomisation   a share of the candidates looks like another item, so that the ranker learns from the user too
    item-age dependent dropout   the module's output is zeroed* for young items more often: their embeddings are hardly trained,
                                 and a ranker that trusts them on old items must not on new ones
    learnable token              stands before the candidate, with the candidate's content embedding added where there is one: the
                                 candidate attends to it, so an item that no training saw is known by its content

Zeroed whole and not scaled up*: what is left has unit length, as when it serves. The learnable token has the candidate's
position*, since the table of positions ends there. The head on the module's own output sees it before the dropout*, or young
items would hardly train the module. The served graph (cross.onnx) has no learnable token yet.

Letters: B users, T slots, C candidates, d width, k width of a content embedding, J tasks.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from encoder.model import KeyValues, PinFM, attend_candidates
from schemas.errors import ConfigError
from schemas.limits import require_in_range

DAY_MS = 24 * 3600 * 1000


@dataclass(frozen=True)
class FineTuneConfig:
    """
    Attributes:
        tasks: J, for example save, like, hide.
        random_candidates: share of candidates that look like another item.
        age_dropout: (age in days, chance of dropping the output): the first pair whose age an item is under counts.
        learnable_token: whether it stands before the candidate.
        content_width: k, of a content embedding that is added to it; 0: none.
        learning_rate_ratio: the module's learning rate over the ranker's.
    """

    tasks: int = 1
    random_candidates: float = 0.1
    age_dropout: tuple[tuple[float, float], ...] = ((7.0, 0.7), (28.0, 0.5))
    learnable_token: bool = True
    content_width: int = 0
    learning_rate_ratio: float = 0.1

    def __post_init__(self) -> None:
        ages = [age for age, _ in self.age_dropout]
        limits = {
            "tasks": self.tasks > 0,
            "random_candidates": 0 <= self.random_candidates <= 1,
            "age_dropout": ages == sorted(set(ages)) and all(age > 0 and 0 <= p <= 1 for age, p in self.age_dropout),
            "content_width": self.content_width >= 0,
            "learning_rate_ratio": self.learning_rate_ratio >= 0,
        }
        require_in_range(self, limits)
        if self.content_width and not self.learnable_token:
            raise ConfigError("content_width: content is added to the learnable token: switch learnable_token on")


class Fused(NamedTuple):
    """What a ranker gets for each candidate, and what trains the module beside it.

    Attributes:
        hidden: `(B, C, d)` the crossing's output; in training zeros where it was dropped.
        kept: `(B, C)` bool: it was not.
        logits: `(B, C, J)` of the module alone.
    """

    hidden: Tensor
    kept: Tensor
    logits: Tensor


class FineTuned(nn.Module):
    """A PinFM as a part of a ranker. In evaluation nothing is random."""

    def __init__(self, model: PinFM, config: FineTuneConfig) -> None:
        super().__init__()
        self.model, self.config = model, config
        d = model.shape.d_model
        self.token = nn.Parameter(torch.randn(d) * 0.1) if config.learnable_token else None
        # Without a bias: no content is a row of zeros, and adds nothing.
        self.content = nn.Linear(config.content_width, d, bias=False) if config.content_width else None
        self.heads = nn.Linear(d, config.tasks)

    def forward(
        self,
        context: KeyValues,
        lengths: Tensor,
        items: Tensor,
        ages_ms: Tensor,
        content: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Fused:
        """
        Args:
            context: of B windows of T slots (PinFM.encode).
            lengths: `(B,)` i64, 0 to T; or `(B, P)`, of P requests with as many candidates each, one after the other.
            items: `(B, C, d)` item embeddings of the candidates, randomised already (`randomise`).
            ages_ms: `(B, C)` i64, of the true candidates (`item_ages_ms`).
            content: `(B, C, k)` of the true candidates; zeros where there is none.
            generator: of the dropout; None: torch's own.

        Raises:
            ConfigError: content is given where the configuration has none, or missing where it has some.
        """
        if (content is None) != (self.content is None):
            raise ConfigError(
                f"content_width is {self.config.content_width}, and content was given: {content is not None}"
            )
        tokens = self.model.candidate_tokens(items)
        lengths = lengths.view(len(items), -1)
        if self.token is None:
            lengths = lengths.repeat_interleave(items.shape[1] // lengths.shape[1], 1)  # (B, C)
            hidden, _ = self.model.cross(tokens, context, lengths)
        else:
            before = self.token.expand(*lengths.shape, -1)  # one of each request serves all of its candidates
            if self.content is not None and content is not None:
                lengths = lengths.repeat_interleave(items.shape[1] // lengths.shape[1], 1)
                before = self.token + self.content(content)  # (B, C, d)
            hidden = cross_after(self.model, before, tokens, context, lengths)
        logits = self.heads(hidden)
        kept = torch.ones_like(ages_ms, dtype=torch.bool)
        if self.training:
            kept = kept_by_age(ages_ms, self.config.age_dropout, generator)
        return Fused(hidden * kept[..., None], kept, logits)

    def groups(self, ranker: Iterable[nn.Parameter], learning_rate: float) -> list[dict[str, Any]]:
        """Parameter groups for an optimizer: the PinFM with its own learning rate, all that is new with the ranker's."""
        new = [p for name, p in self.named_parameters() if not name.startswith("model.")]
        return [
            {"params": list(self.model.parameters()), "lr": self.config.learning_rate_ratio * learning_rate},
            {"params": [*new, *ranker], "lr": learning_rate},
        ]


def cross_after(model: PinFM, before: Tensor, tokens: Tensor, context: KeyValues, lengths: Tensor) -> Tensor:
    """The crossing pass (PinFM.cross) with one token between context and candidate.

    The token attends to its user's context and to itself; a candidate to the context, its token and itself.

    Args:
        before: `(B, F, d)`: each of the F tokens is for C / F candidates, one after the other.
        tokens: `(B, C, d)`.
        lengths: `(B, F)` i64, 0 to T, or `(B,)`: how much of its context each of the F tokens, and its candidates, see.

    Returns:
        `(B, C, d)`, unit length.
    """
    each = tokens.shape[1] // before.shape[1]
    lengths = lengths.view(len(tokens), -1).expand(-1, before.shape[1])  # (B, F)
    slots = torch.arange(context.keys[0].shape[1], device=tokens.device)
    first_hides = (slots >= lengths[..., None]).unsqueeze(1)  # (B, 1, F, T)
    hides = first_hides.repeat_interleave(each, 2)  # (B, 1, C, T)
    first, second = model.enter(before, lengths), model.enter(tokens, lengths.repeat_interleave(each, 1))
    for layer, block in enumerate(model.decoder()):
        past = (block.by_head(context.keys[layer]), block.by_head(context.values[layer]))
        (first_q, *first_own), (q, *own) = (block.project(x) for x in (first, second))
        first_kv, kv = ((block.by_head(k), block.by_head(v)) for k, v in (first_own, own))
        attended = attend_candidates(first_q, past, first_hides, [first_kv])
        key, value = (x.repeat_interleave(each, 2) for x in first_kv)
        second = block.finish(second, attend_candidates(q, past, hides, [(key, value), kv]))
        first = block.finish(first, attended)
    return model.leave(second)


def randomise(candidates: Tensor, items: int, share: float, generator: torch.Generator | None = None) -> Tensor:
    """Candidate id randomisation. For the item embeddings alone: age, content and label stay those of the true candidate.

    Args:
        candidates: any shape, i64 in [0, items), places in the catalogue.
        share: of them that become a uniformly drawn item.
    """
    draw = torch.rand(candidates.shape, generator=generator, device=candidates.device)
    others = torch.randint(items, candidates.shape, generator=generator, device=candidates.device)
    return torch.where(draw < share, others, candidates)


def kept_by_age(
    ages_ms: Tensor, age_dropout: tuple[tuple[float, float], ...], generator: torch.Generator | None = None
) -> Tensor:
    """Item-age dependent dropout: which outputs are kept. `(...)` i64 -> `(...)` bool."""
    days = torch.tensor([age for age, _ in age_dropout], dtype=torch.float64, device=ages_ms.device)
    chance = torch.tensor([*(p for _, p in age_dropout), 0.0], device=ages_ms.device)
    drop = chance[torch.bucketize(ages_ms.double(), days * DAY_MS, right=True)]
    return torch.rand(ages_ms.shape, generator=generator, device=ages_ms.device) >= drop


def item_ages_ms(
    first_seen_ms: NDArray[np.int64], items: NDArray[np.int64], now_ms: NDArray[np.int64]
) -> NDArray[np.int64]:
    """How old candidates are.

    Args:
        first_seen_ms: `(m,)` when each item of the catalogue first appeared.
        items: any shape, places in the catalogue; -1 for an item that is in none: it is new.
        now_ms: the same shape, when the candidate was shown. An item that appeared later counts as new.
    """
    if not len(first_seen_ms):
        return np.zeros(items.shape, np.int64)
    return np.where(items < 0, 0, np.maximum(now_ms - first_seen_ms[items], 0))


def first_seen_ms(items: NDArray[np.int64], timestamps_ms: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """When each item of a catalogue first appeared in a log. Columns `(n,)` of places and Unix ms -> `(count,)`.

    Items that never did have the greatest time there is: they are new whenever one asks.
    """
    first = np.full(count, np.iinfo(np.int64).max)
    np.minimum.at(first, items, timestamps_ms)
    return first


def ranking_loss(logits: Tensor, labels: Tensor, shown: Tensor) -> Tensor:
    """Binary cross-entropy of the tasks: of a ranker's logits and, added to that, of the module's own (`Fused.logits`).

    Args:
        logits, labels: `(B, C, J)`; labels f32, 0 or 1.
        shown: `(B, C)` bool: not padding.

    Returns:
        A scalar, the mean over candidates and tasks; 0 without any.
    """
    losses = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none").mean(-1)
    return (losses * shown).sum() / shown.sum().clamp(min=1)
