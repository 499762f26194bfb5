"""Which keys a new token sees: the real past slots, and the new tokens up to itself. Letters as in graphs.py."""

from __future__ import annotations

import numpy as np

from encoder.graph_attention import Keys, NewKeys
from encoder.graph_heads import Heads
from encoder.graph_past import MASKED, Past


class Masks:
    """Made once for all layers of a graph."""

    def __init__(self, heads: Heads, steps: str, n_tokens: str, last: str, past: Past | None) -> None:
        self._heads = heads
        self._net = net = heads.net
        self._sizes = None
        with net.scope("masks"):
            later = net("Greater", steps, net("Unsqueeze", steps, net.i64(1)))  # (T, T)
            seen_all = net("Unsqueeze", net("Not", later), net.i64(0))  # (1, T, T)
            seen_last = net("Unsqueeze", net("LessOrEqual", steps, last), net.i64(1))  # (B, 1, T)
            if past is not None:
                n_past = net("Shape", past.is_real, start=1, end=2)
                self._sizes = net("Concat", n_past, n_tokens, axis=0)
                real = net("Unsqueeze", past.is_real, net.i64(1))  # (B, 1, P)
                batch = net("Shape", past.is_real, start=0, end=1)
                every = net("Concat", batch, n_tokens, n_tokens, axis=0)
                past_every = net("Concat", batch, n_tokens, n_past, axis=0)
                seen_all = net("Concat", net("Expand", real, past_every), net("Expand", seen_all, every), axis=-1)
                seen_last = net("Concat", real, seen_last, axis=-1)
            # (B or 1, T or 1, K)
            self._tokens, self._last = (
                net("Where", seen, net.number(0), net.number(MASKED)) for seen in (seen_all, seen_last)
            )
            self._rows, self._row_tokens = self._tokens, ""
            if heads.group > 1:
                # Query row m belongs to token m // R.
                n_rows = net("Mul", n_tokens, net.i64(heads.group))
                token_of_row = net.constant(np.repeat(np.arange(heads.shape.context), heads.group))
                self._row_tokens = net("Slice", token_of_row, net.i64(0), n_rows)
                self._rows = net("Gather", self._tokens, self._row_tokens, axis=1)  # (B or 1, M, K)
            self._tokens, self._last, self._rows = map(heads.over_heads, (self._tokens, self._last, self._rows))

    def mask(self, only_last: bool) -> str:
        """0 or MASKED `(B or 1, 1, M, K)` of the narrow type, for the queries of all tokens or of the last one."""
        return self._last if only_last else self._rows

    def keys(self, new: NewKeys, past: Past | None, layer: int, only_last: bool) -> Keys:
        """The keys of a layer, for the queries of all tokens or of the last one."""
        net = self._net
        keys, values = [new.key], [new.value]
        key_scale, value_scale = new.key_scale, new.value_scale
        if past is not None:
            keys, values = [past.keys[layer], *keys], [past.values[layer], *values]
            key_scale = net("Concat", past.key_scales[layer], key_scale, axis=-1)
            value_scale = net("Concat", past.value_scales[layer], value_scale, axis=-1)
        tokens = self._last if only_last else self._tokens
        largest = net("ReduceMax", net("Add", value_scale, tokens), net.i64(-1), keepdims=1)  # (B, G, T or 1, 1)
        if not only_last and self._row_tokens:
            largest = net("Gather", largest, self._row_tokens, axis=-2)  # (B, G, M, 1)
        return Keys(keys, values, key_scale, value_scale, self.mask(only_last), largest, self._sizes)
