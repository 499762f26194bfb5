"""Where heads stand in a graph's tensors. With one kv head their axis is left out: then no number has to move.

Letters as in graphs.py; R = H / G heads share a kv head; M = T R query rows, ordered by token, then head; K = T or P keys.
"""

from __future__ import annotations

from dataclasses import dataclass

from encoder.graph_net import Net
from schemas.bundle import ModelShape


@dataclass(frozen=True)
class Heads:
    """Layout moves of one graph. `(B, G, ...)` below means `(B, ...)` if G = 1."""

    net: Net
    shape: ModelShape

    @property
    def _single(self) -> bool:
        return self.shape.kv_heads == 1

    @property
    def group(self) -> int:
        """R."""
        return self.shape.heads // self.shape.kv_heads

    def apart(self, x: str) -> str:
        """`(B, K, G D)` -> `(B, G, K, D)`."""
        if self._single:
            return x
        heads = self.net.reshape(x, 0, 0, self.shape.kv_heads, -1)
        return self.net("Transpose", heads, perm=[0, 2, 1, 3])

    def beside_keys(self, x: str) -> str:
        """Scales or a mask `(B, G or 1, K)` -> `(B, G, 1, K)`, which broadcasts over scores."""
        return x if self._single else self.net("Unsqueeze", x, self.net.i64(2))

    def over_heads(self, x: str) -> str:
        """A mask `(B, M, K)` -> `(B, 1, M, K)`."""
        return x if self._single else self.net("Unsqueeze", x, self.net.i64(1))

    def rows(self, x: str, width: int) -> str:
        """Queries `(B, T, G R width)` -> `(B, G, M, width)`."""
        if self._single:
            return self.net.reshape(x, 0, -1, width)
        heads = self.net.reshape(x, 0, 0, self.shape.kv_heads, -1, width)
        moved = self.net("Transpose", heads, perm=[0, 2, 1, 3, 4])  # (B, G, T, R, width)
        return self.net.reshape(moved, 0, 0, -1, width)

    def tokens(self, x: str, width: int) -> str:
        """`(B, G, M, width)` -> `(B, T, G R width)`."""
        s = self.shape
        if self._single:
            return self.net.reshape(x, 0, -1, s.heads * width)
        heads = self.net.reshape(x, 0, 0, -1, self.group, width)
        moved = self.net("Transpose", heads, perm=[0, 2, 1, 3, 4])  # (B, T, G, R, width)
        return self.net.reshape(moved, 0, 0, s.heads * width)
