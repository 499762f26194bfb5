"""What was measured, from which sizes are computed: by us, or with `slipstream bench NAME --json` on machines of your own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from schemas.errors import ConfigError


class EncodeCosts(NamedTuple):
    """Of one model, on one core, through the whole worker.

    Attributes:
        hot_us: CPU of a steady refresh whose state the worker has; one in 65 anchors its window anew.
        cold_us: of one that reads its state from Redis.
        full_us: of encoding a window from nothing: a cold user, a new model.
        overhead_share: of `hot_us`, what is not ONNX Runtime's: it stays on the CPU when a GPU runs the graphs.
        gpu_append_per_s, gpu_encode_per_s: an H100's best (docs/gpu.md); 0: not measured.
    """

    hot_us: float
    cold_us: float
    full_us: float
    overhead_share: float
    gpu_append_per_s: float = 0.0
    gpu_encode_per_s: float = 0.0


_UNKNOWN = EncodeCosts(0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Costs:
    """What was measured, on one core of a shared machine.

    Attributes:
        ingest_us: `bench stream`, JSON with its validation.
        sequence_us, rewrite_us: of an event, and of each time that a sequence of 256 is rewritten.
        changelog_bytes_per_record: of each record of a rewritten sequence, zstd.
        sequence_user_bytes: of a user in the sequence stage's table, beside its records.
        redis_write_us: of Redis, a state's append. Its reads are bytes: `redis_bytes_per_s`.
        encode: by preset, `bench refresh`.
    """

    ingest_us: float = 4.0
    sequence_us: float = 3.0
    rewrite_us: float = 28.0
    changelog_bytes_per_record: float = 8.3
    sequence_user_bytes: float = 160.0
    redis_write_us: float = 16.0
    redis_bytes_per_s: float = 2.4e9
    encode: Mapping[str, EncodeCosts] = field(
        default_factory=lambda: {
            "nano": EncodeCosts(133, 275, 1300, 0.69),
            "small": EncodeCosts(158, 271, 3890, 0.43, 50_610, 25_673),
            "medium": EncodeCosts(462, 725, 20_600, 0.20, 20_302, 10_409),
        }
    )


def with_measured(costs: Costs, result: Mapping[str, Any], where: str) -> Costs:
    """The costs, with the figures of a `slipstream bench NAME --json` in their place.

    Args:
        where: names the result in errors.

    Raises:
        ConfigError: it is no such result, of a bench that says nothing about costs, or of another version.
    """
    bench = result.get("bench")
    try:
        match bench:
            case "stream":
                return replace(costs, ingest_us=1e6 / float(result["figures"]["ingest_events_per_cpu_s"]))
            case "refresh":
                return replace(costs, encode={**costs.encode, **_refreshes(costs, result)})
            case "scale":
                return replace(costs, redis_write_us=float(result["figures"]["redis_us_per_event"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{where}: bench {bench} of another version, or without a figure that is needed: {error}; run it again"
        ) from None
    raise ConfigError(f"{where}: sizes are made of what `slipstream bench stream`, `refresh` and `scale --json` print")


def _refreshes(costs: Costs, result: Mapping[str, Any]) -> dict[str, EncodeCosts]:
    figures = result["figures"]
    return {
        preset: costs.encode.get(preset, _UNKNOWN)._replace(
            hot_us=float(figures[f"cpu_us_hot_{preset}"]),
            cold_us=float(figures[f"cpu_us_cold_{preset}"]),
            full_us=float(figures[f"cpu_us_full_{preset}"]),
            overhead_share=1 - float(result["details"][preset]["steady"]["share"]["run"]),
        )
        for preset in result["config"]["presets"]
    }
