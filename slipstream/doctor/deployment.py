"""All checks of a deployment, by the part of it that they look at."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, TypeVar, get_args

from edge.kafka import KafkaConfig
from encoder.bundle import read_manifest
from encoder.runtime import RuntimeConfig
from schemas.errors import BundleError, SlipstreamError
from schemas.names import Names
from schemas.state import StateLayout
from schemas.vocabulary import Vocabulary
from slipstream.doctor import disk, kafka, model, redis, runtime
from slipstream.doctor.examine import Probe
from slipstream.doctor.finding import Finding, Level, skipped

T = TypeVar("T")
Part = Literal["runtime", "model", "kafka", "redis", "disk"]
PARTS: tuple[Part, ...] = get_args(Part)


@dataclass(frozen=True)
class Deployment:
    """What the settings say. Where they say nothing that can be used, the error that says so.

    Attributes:
        directories: that are written to, by the setting that names them.
    """

    names: Names
    vocabulary: Vocabulary
    kafka: KafkaConfig | SlipstreamError
    redis_url: str | SlipstreamError = field(repr=False)
    bundle: Path | SlipstreamError
    runtime: RuntimeConfig | SlipstreamError
    directories: Mapping[str, Path]
    state_ttl_s: int = 0


def probes(of: Deployment, parts: Collection[Part] = PARTS) -> list[Probe]:
    """The checks of these parts, in the order of PARTS."""
    made: dict[Part, Probe] = {
        "runtime": _probe(runtime.CHECKS, of.runtime, runtime.runtime_findings),
        "model": _probe(model.CHECKS, of.bundle, lambda bundle: _model(of, bundle)),
        "kafka": _probe(kafka.CHECKS, of.kafka, lambda config: kafka.kafka_findings(config, of.names)),
        "redis": _probe(
            redis.CHECKS,
            of.redis_url,
            lambda url: redis.redis_findings(url, of.names, of.state_ttl_s, _layout(of.bundle)),
        ),
        "disk": _probe(tuple(of.directories), of.directories, disk.disk_findings),
    }
    return [made[part] for part in PARTS if part in parts]


def _probe(checks: tuple[str, ...], given: T | SlipstreamError, findings: Callable[[T], Iterator[Finding]]) -> Probe:
    if isinstance(given, SlipstreamError):
        return Probe(checks, partial(_unusable, checks, given))
    return Probe(checks, partial(findings, given))


def _unusable(checks: tuple[str, ...], error: SlipstreamError) -> Iterator[Finding]:
    yield Finding(checks[0], Level.FAIL, str(error))
    yield from skipped(checks[1:], f"see {checks[0]}")


def _model(of: Deployment, bundle: Path) -> Iterator[Finding]:
    # With settings of providers that are no settings, the bundle itself is still looked at.
    config = RuntimeConfig() if isinstance(of.runtime, SlipstreamError) else of.runtime
    return model.model_findings(bundle, of.vocabulary, config)


def _layout(bundle: Path | SlipstreamError) -> StateLayout | None:
    """How states of the bundle's model are laid out; None if there is no manifest that can be read."""
    if isinstance(bundle, SlipstreamError):
        return None
    try:
        manifest = read_manifest(bundle)
    except BundleError:
        return None
    return StateLayout(manifest.shape, manifest.model_id)
