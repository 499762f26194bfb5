"""The drawn pictures of docs/images/. From the repository's root:

python -m docs.pictures.draw
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from docs.pictures.model import anchor, dcat, refresh, sequence, state
from docs.pictures.path import architecture, fence, logo, times
from docs.pictures.svg import Picture

IMAGES = Path(__file__).parents[1] / "images"
PICTURES: dict[str, Callable[[], Picture]] = {
    "anchor": anchor,
    "architecture": architecture,
    "dcat": dcat,
    "fence": fence,
    "logo": logo,
    "refresh": refresh,
    "sequence": sequence,
    "state": state,
    "times": times,
}

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (IMAGES / f"{name}.svg").write_text(draw().svg())
