"""PinFM in torch: what is trained, and the oracle of the graphs. Source: arXiv 2507.12704; choices of our own are marked *.

    tokens  = item + action + surface + gap*    item = 8 hashed sub-tables side by side
    x       = sqrt(d)* unit(tokens + MLP(tokens)*) + position*                              phi_in
    x       = L blocks: x + attention(norm(x)), x + MLP(norm(x))                            pre-LN, causal, GPT-2
    H       = unit(y + MLP(y)*), y = norm(x)                                                phi_out
    z(item) = unit(e + MLP(e)*), e = the item's embedding                                   psi
    score   = w . H + b                                                                     of a crossed candidate*

* The MLPs stand around a residual and begin near zero, since without it they slow the start of training; sqrt(d) gives tokens the
  magnitude that the positions and blocks expect (a unit vector's entries would be tiny beside them). How time enters PinFM is not
  public: positions are learned, one for each slot of the context and one more for candidates, and the time since the event
  before, in buckets, is one more embedding of the sum.

Letters: B windows, T tokens, C candidates, d width, H heads, G kv heads, R = H / G, D head_dim, L layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from encoder.graph_attention import GRID, SCALE_HEADROOM
from encoder.graph_parts import LAYER_NORM_EPSILON, NORM_EPSILON
from encoder.weights import MLP_RATIO, check_weights
from schemas.bundle import GAP_BUCKETS, SUB_TABLES, ModelShape
from schemas.scales import MAX_SCALE, MIN_SCALE
from schemas.vocabulary import Vocabulary

#: Keys and values `(B, T, G, D)` to what is left of them in a state.
Stored = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class KeyValues(NamedTuple):
    """Keys and values of a context, one entry per layer, each `(B, T, G, D)`."""

    keys: list[Tensor]
    values: list[Tensor]


class Phi(nn.Module):
    """Point-wise MLP with L2 norm around a residual."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(d, d), nn.Linear(d, d)

    def forward(self, x: Tensor) -> Tensor:
        return unit(x + self.down(gelu(self.up(x))))


class Block(nn.Module):
    """A pre-LN transformer block with grouped-query attention."""

    def __init__(self, shape: ModelShape, dropout: float) -> None:
        super().__init__()
        d, kv = shape.d_model, 2 * shape.kv_heads * shape.head_dim
        self.shape = shape
        self.norm_attention = nn.LayerNorm(d, eps=LAYER_NORM_EPSILON)
        self.query, self.key_value, self.out = nn.Linear(d, d), nn.Linear(d, kv), nn.Linear(d, d)
        self.norm_mlp = nn.LayerNorm(d, eps=LAYER_NORM_EPSILON)
        self.up, self.down = nn.Linear(d, MLP_RATIO * d), nn.Linear(MLP_RATIO * d, d)
        self.dropout = nn.Dropout(dropout)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries `(B, H, T, D)`, keys and values `(B, T, G, D)` of `(B, T, d)`."""
        s = self.shape
        normed = self.norm_attention(x)
        q = self.query(normed).unflatten(-1, (s.heads, s.head_dim)).transpose(1, 2)
        k, v = self.key_value(normed).unflatten(-1, (2, s.kv_heads, s.head_dim)).unbind(2)
        return q, k, v

    def by_head(self, x: Tensor) -> Tensor:
        """Keys or values of the kv heads, for each head that shares them: `(B, T, G, D)` -> `(B, H, T, D)`."""
        return x.transpose(1, 2).repeat_interleave(self.shape.heads // self.shape.kv_heads, 1)

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """The rest of the block, from attention `(B, H, T, D)` on."""
        x = x + self.dropout(self.out(attended.transpose(1, 2).flatten(2)))
        inner: Tensor = self.dropout(self.down(gelu(self.up(self.norm_mlp(x)))))
        return x + inner


class PinFM(nn.Module):
    """The model. `weights()` names its parameters as encoder.weights does."""

    def __init__(self, shape: ModelShape, vocabulary: Vocabulary, dropout: float = 0.0, time_gaps: bool = True) -> None:
        """
        Args:
            dropout: of each block's two residual branches, in training.
            time_gaps: False: the table of gaps is zeros, and stays so.
        """
        super().__init__()
        self.shape, self.vocabulary = shape, vocabulary
        d = shape.d_model
        self.items = nn.Parameter(torch.randn(SUB_TABLES, shape.rows, d // SUB_TABLES) * 0.3)
        self.actions = nn.Parameter(torch.randn(len(vocabulary.actions), d) * 0.1)
        self.surfaces = nn.Parameter(torch.randn(len(vocabulary.surfaces), d) * 0.1)
        self.gaps = nn.Parameter(torch.randn(GAP_BUCKETS, d) * 0.1 * time_gaps, requires_grad=time_gaps)
        self.candidate = nn.Parameter(torch.randn(d) * 0.1)
        self.positions = nn.Parameter(torch.randn(shape.context + 1, d) * 0.1)
        self.phi_in, self.phi_out, self.psi = Phi(d), Phi(d), Phi(d)
        self.blocks = nn.ModuleList(Block(shape, dropout) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(d, eps=LAYER_NORM_EPSILON)
        self.score = nn.Linear(d, 1)
        #: log of the inverse temperature of the retrieval losses.
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0)))
        self._initialise()

    def _initialise(self) -> None:
        residual_std = 0.02 / math.sqrt(2 * self.shape.layers)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                ends_residual = name.endswith((".out", ".down"))
                nn.init.normal_(module.weight, std=residual_std if ends_residual else 1 / math.sqrt(module.in_features))
                nn.init.zeros_(module.bias)

    # ---- tokens

    def item_embeddings(self, rows: Tensor) -> Tensor:
        """`(8, ...)` rows of the sub-tables (encoder.features.item_rows) -> `(..., d)`."""
        table = torch.arange(SUB_TABLES, device=rows.device).view(-1, *[1] * (rows.dim() - 1))
        return self.items[table, rows].movedim(0, -2).flatten(-2)

    def event_tokens(self, items: Tensor, actions: Tensor, surfaces: Tensor, gaps: Tensor) -> Tensor:
        """Tokens of events: item embeddings `(B, T, d)`, codes and rows of the gaps' table `(B, T)` -> `(B, T, d)`."""
        for rows, table in ((actions, self.actions), (surfaces, self.surfaces), (gaps, self.gaps)):
            items = items + functional.embedding(rows, table)
        return items

    def candidate_tokens(self, items: Tensor) -> Tensor:
        """Tokens of candidates: item embeddings `(B, C, d)` -> `(B, C, d)`."""
        return items + self.candidate

    def item_vectors(self, items: Tensor) -> Tensor:
        """psi: what user embeddings are compared with. Item embeddings `(..., d)` -> `(..., d)`, unit length."""
        vectors: Tensor = self.psi(items)
        return vectors

    # ---- the two passes

    def encode(self, tokens: Tensor, stored: Stored | None = None) -> tuple[Tensor, KeyValues]:
        """The context pass.

        Args:
            tokens: `(B, T, d)`, right-padded.
            stored: what is left of keys and values in a state, for attention to see; `as_stored` is what the graphs do.

        Returns:
            H `(B, T, d)`, unit length, H[:, i] of tokens 0 to i; keys and values (what is left of them).
        """
        x = self.enter(tokens, torch.arange(tokens.shape[1], device=tokens.device))
        kept = KeyValues([], [])
        for block in self.decoder():
            q, k, v = block.project(x)
            if stored is not None:
                k, v = stored(k, v)
            kept.keys.append(k)
            kept.values.append(v)
            attended = functional.scaled_dot_product_attention(
                q, k.transpose(1, 2), v.transpose(1, 2), is_causal=True, enable_gqa=True
            )
            x = block.finish(x, attended)
        return self.leave(x), kept

    def cross(self, tokens: Tensor, context: KeyValues, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """The crossing pass (DCAT): each candidate attends to the first `lengths` slots of its context and to itself.

        Args:
            tokens: `(B, C, d)`.
            context: of B windows, T slots each.
            lengths: `(B,)` i64, 0 to T; or `(B, C)`, a length for each candidate.

        Returns:
            H `(B, C, d)`, unit length; score `(B, C)`.
        """
        lengths = lengths.view(len(tokens), -1).expand(-1, tokens.shape[1])  # (B, C)
        x = self.enter(tokens, lengths)
        slots = torch.arange(context.keys[0].shape[1], device=tokens.device)
        hides = (slots >= lengths[..., None]).unsqueeze(1)  # (B, 1, C, T)
        for layer, block in enumerate(self.decoder()):
            past = (block.by_head(context.keys[layer]), block.by_head(context.values[layer]))
            q, k, v = block.project(x)
            own = (block.by_head(k), block.by_head(v))
            x = block.finish(x, attend_candidates(q, past, hides, [own]))
        hidden = self.leave(x)
        return hidden, self.score(hidden).squeeze(-1)

    def enter(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """phi_in and positions: what the first block gets. `(B, T, d)` -> `(B, T, d)`."""
        entered: Tensor = self.phi_in(tokens) * math.sqrt(self.shape.d_model) + self.positions[positions]
        return entered

    def leave(self, x: Tensor) -> Tensor:
        """phi_out: H of what the last block gives. `(B, T, d)` -> `(B, T, d)`, unit length."""
        hidden: Tensor = self.phi_out(self.norm(x))
        return hidden

    def decoder(self) -> list[Block]:
        """The blocks, first to last."""
        return [block for block in self.blocks if isinstance(block, Block)]

    # ---- weights

    def weights(self) -> dict[str, NDArray[np.float32]]:
        """Every weight by name, as copies."""
        return {
            name: value.detach().to("cpu", torch.float32).numpy().copy() for name, value in self.state_dict().items()
        }

    def load_weights(self, weights: Mapping[str, NDArray[np.float32]], where: str = "weights") -> None:
        """Take over weights by name.

        Raises:
            ContractError: names or shapes are another model's.
        """
        check_weights(weights, self.shape, self.vocabulary, where)
        self.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})


def attend_candidates(
    q: Tensor, past: tuple[Tensor, Tensor], hides: Tensor, own: Sequence[tuple[Tensor, Tensor]]
) -> Tensor:
    """Attention of each candidate to its user's past, and to keys and values that are its own.

    Args:
        q: `(B, H, C, D)`.
        past: keys and values, `(B, H, T, D)` each.
        hides: bool, broadcast to `(B, 1, C, T)`: slots that are not there.
        own: keys and values that belong to one candidate each, `(B, H, C or 1, D)`.

    Returns:
        `(B, H, C, D)`.
    """
    root, (keys, values) = math.sqrt(q.shape[-1]), past
    scores = [(q @ keys.transpose(2, 3) / root).masked_fill(hides, -math.inf)]
    scores += [(q * k).sum(-1, keepdim=True) / root for k, _ in own]
    weight = torch.cat(scores, -1).softmax(-1)
    slots = keys.shape[2]
    attended = weight[..., :slots] @ values
    for i, (_, v) in enumerate(own):
        attended = attended + weight[..., slots + i, None] * v
    return attended


def unit(x: Tensor) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / norm.clamp(min=NORM_EPSILON)


def gelu(x: Tensor) -> Tensor:
    return functional.gelu(x, approximate="tanh")


def as_stored(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """What is left of keys and values `(..., D)` in a state: int8 with a scale each. Not differentiable."""
    return as_integers(k), as_integers(v)


def as_integers(x: Tensor, bits: int = 8) -> Tensor:
    """What is left of `(..., D)` in integers of so many bits with a scale each, on the grid. Not differentiable."""
    most = 2 ** (bits - 1) - 1
    scale = (x.abs().amax(-1, keepdim=True) * (SCALE_HEADROOM / most)).clamp(MIN_SCALE, MAX_SCALE)
    scale = (scale + scale * GRID) - scale * GRID
    rounded: Tensor = (x / scale).round().clamp(-most, most) * scale
    return rounded
