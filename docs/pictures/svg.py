"""A few shapes of SVG, in colours that follow the reader's light or dark scheme. Lengths are pixels, places are (x, y)."""

from __future__ import annotations

from html import escape

_STYLE = """
text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; font-size: 16px;
  fill: var(--ink); }
.title { font-weight: 600; font-size: 17px; }
.small { font-size: 14px; fill: var(--muted); }
.code { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: 14px; }
.on { fill: var(--on); font-weight: 600; }
.process { fill: var(--process); stroke: var(--line); }
.data { fill: var(--data); stroke: var(--data-line); }
.kept { fill: var(--kept); stroke: var(--kept); }
.new { fill: var(--new); stroke: var(--new); }
.bar { fill: #9fd8e0; }
.gone { fill: none; stroke: var(--muted); stroke-dasharray: 4 4; }
.plain { fill: none; stroke: var(--line); }
.bad { fill: var(--process); stroke: var(--bad); }
.bad-text { fill: var(--bad); font-weight: 600; }
.line { stroke: var(--line); stroke-width: 2; fill: none; }
.new-line { stroke: var(--new); stroke-width: 2.5; fill: none; }
.bad-line { stroke: var(--bad); stroke-width: 2; fill: none; }
.faint { stroke: var(--muted); stroke-width: 1; stroke-dasharray: 3 5; fill: none; }
svg { --ink: #14262a; --muted: #5c7278; --line: #54707a; --process: #ffffff; --data: #d9eef1; --data-line: #0b7285;
  --kept: #0b7285; --new: #d9480f; --bad: #c92a2a; --on: #ffffff; --arrow: #54707a; }
@media (prefers-color-scheme: dark) { svg { --ink: #e3eef0; --muted: #9fb4b9; --line: #8aa5ad; --process: #17272b;
  --data: #12414a; --data-line: #5cc8d7; --kept: #3aa7b8; --new: #ff922b; --bad: #ff8787; --on: #0c1a1d; --arrow: #8aa5ad; } }
"""
_HEADS = "".join(
    f'<marker id="{name}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto">'
    f'<path d="M0 0 10 5 0 10z" style="fill: var({colour})"/></marker>'
    for name, colour in (("line", "--arrow"), ("new-line", "--new"), ("bad-line", "--bad"))
)


class Picture:
    """Shapes in the order in which they are drawn."""

    def __init__(self, width: int, height: int, told: str) -> None:
        """
        Args:
            told: what the picture shows, for those who do not see it.
        """
        self._size, self._told = (width, height), told
        self._shapes: list[str] = []

    def text(self, x: float, y: float, text: str, kind: str = "", anchor: str = "middle") -> None:
        """One line; `y` is its baseline."""
        self._shapes.append(f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" class="{kind}">{escape(text)}</text>')

    def box(self, x: float, y: float, width: float, height: float, kind: str, radius: float = 8) -> None:
        self._shapes.append(
            f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}" class="{kind}" stroke-width="1.5"/>'
        )

    def log(self, x: float, y: float, width: float, height: float) -> None:
        """A topic: a pipe that lies."""
        r = 9
        self._shapes.append(
            f'<path class="data" stroke-width="1.5" d="M{x + r:g} {y:g}H{x + width - r:g}a{r} {height / 2:g} 0 0 1 0 {height:g}'
            f'H{x + r:g}a{r} {height / 2:g} 0 0 1 0 {-height:g}z"/><path class="data" stroke-width="1.5" style="fill: none" '
            f'd="M{x + width - r:g} {y:g}a{r} {height / 2:g} 0 0 0 0 {height:g}"/>'
        )

    def path(self, *points: tuple[float, float], kind: str = "line", arrow: bool = True) -> None:
        """A line through points, with a head at its end."""
        way = " ".join(f"{x:g},{y:g}" for x, y in points)
        head = f' marker-end="url(#{kind})"' if arrow else ""
        self._shapes.append(f'<polyline points="{way}" class="{kind}"{head}/>')

    def svg(self) -> str:
        width, height = self._size
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img"><title>{escape(self._told)}</title><style>{_STYLE}</style><defs>{_HEADS}</defs>\n'
            + "\n".join(self._shapes)
            + "\n</svg>\n"
        )
