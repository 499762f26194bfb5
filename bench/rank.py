"""`slipstream bench rank`: what reading and crossing cached states costs a ranking request, and what it saves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bench.environments import contender_python
from bench.feast import Feast
from bench.path import Lab
from bench.rank_reading import measure_reading
from bench.rank_scoring import Contest, Load
from bench.rank_states import Ranked, write_states
from bench.result import Result
from schemas.errors import ConfigError

Say = Callable[[str], None]


@dataclass(frozen=True)
class RankBench:
    """
    Attributes:
        presets: models; states of the first are what is read.
        loads: requests to score: users, candidates of each.
        reads: users of a read.
        seconds: that each way is measured for.
        naive_s: that a request of the naive way may take; what is left of it then is reckoned.
        contenders: read beside Feast.
    """

    presets: tuple[str, ...] = ("small", "medium")
    loads: tuple[Load, ...] = (Load(1, 128), Load(1, 1000), Load(8, 128), Load(64, 16))
    reads: tuple[int, ...] = (1, 50, 500)
    seconds: float = 3.0
    naive_s: float = 5.0
    contenders: bool = True

    def __post_init__(self) -> None:
        if not self.presets:
            raise ConfigError("presets: none named")


def run(config: RankBench, lab: Lab, environments: Path, say: Say) -> Result:
    """Reading first, while nothing else keeps memory warm; then scoring, model by model."""
    python = contender_python("feast", "rank", environments, say) if config.contenders else None
    reading: dict[str, Any] = {}
    scoring: dict[str, Any] = {}
    for preset in config.presets:
        names, directory = lab.fresh(f"rank-{preset}")
        first = preset == config.presets[0]
        users = max(load.users for load in config.loads)
        ranked = write_states(
            lab.stack.redis_url, names, directory / "model", preset, max(users, *config.reads) if first else users
        )
        if first:
            reading = _reading(config, ranked, python, directory / "feast", say)
        contest = Contest(ranked, config.naive_s)
        scoring[preset] = {}
        for load in config.loads:
            found = scoring[preset][str(load)] = contest.measure(load, config.seconds)
            say(
                f"{preset}, {load.users} x {load.candidates}: cached {found['cached']['p50']:.2f} ms, "
                f"{found['cached_vs_request']:.1f}x over encoding in the request, {found['cached_vs_naive']:.0f}x over naive"
            )
    details = {"reading": reading, "scoring": scoring}
    return Result("rank", _figures(reading, scoring[config.presets[0]]), asdict(config), details)


def _reading(config: RankBench, ranked: Ranked, python: Path | None, directory: Path, say: Say) -> dict[str, Any]:
    found = {}
    with ExitStack() as stack:
        feast = None
        if python is not None:
            say("writing the embeddings to Feast")
            address = urlsplit(ranked.redis_url).netloc
            width = ranked.bundle.shape.d_model
            feast = stack.enter_context(Feast(python, address, directory, max(config.reads), width))
        for users in config.reads:
            found[str(users)] = measure_reading(ranked, users, feast, config.seconds)
            parts = (f"{name} {of['p50']:.2f} ms" for name, of in found[str(users)].items() if isinstance(of, Mapping))
            say(f"reading {users}: {', '.join(parts)}")
    return found


def _figures(reading: Mapping[str, Any], scoring: Mapping[str, Any]) -> dict[str, float | None]:
    """Of the first model; the worse of the requests with 128 candidates a user."""
    fifty = reading.get("50", {})
    at_128 = [found["cached_vs_request"] for load, found in scoring.items() if load.endswith("x128")]
    return {
        "read50_embeddings_ms_p50": fifty.get("embeddings", {}).get("p50"),
        "read50_embeddings_ms_p99": fifty.get("embeddings", {}).get("p99"),
        "read50_states_ms_p50": fifty.get("states", {}).get("p50"),
        "cached_vs_request_128": min(at_128, default=None),
        "cached_vs_naive_1000": scoring.get("1x1000", {}).get("cached_vs_naive"),
        "feast_vs_read50": fifty.get("feast_vs_embeddings"),
    }
