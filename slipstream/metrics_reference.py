"""docs/metrics.md: what every metric means, as the registries of the stages themselves say it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from prometheus_client import CollectorRegistry

from encoder.metrics import EncodeMetrics
from ranker.metrics import ReaderMetrics
from stream.metrics import IngestMetrics, SequenceMetrics

_HEAD = """# Metrics

<!-- Written by `python -m slipstream.metrics_reference > docs/metrics.md`; a test compares. -->

What `/metrics` of each stage says ([operations.md](operations.md), health endpoints), and what a ranker's `ReaderMetrics` adds to
the registry that it is given. Seconds and bytes throughout. No label holds a user or an item: a worker has about 90 series, and
one or two more for each partition that it owns.
Counters of reasons and kinds are there from the start with 0, so that the first dead letter is an increase. `process_*` is told
on Linux. `deploy/grafana/dashboards/slipstream.json` shows all this, and [alerts.md](alerts.md) says what to do about it.
"""
_TABLE = "\n## {title}\n\n| metric | type | labels | meaning |\n| --- | --- | --- | --- |\n"


class Family(NamedTuple):
    """A metric.

    Attributes:
        name: as queries name it; of a histogram without `_bucket`, `_sum` and `_count`.
        labels: without a histogram's `le`.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


def families(registry: CollectorRegistry) -> list[Family]:
    """What a registry exposes, whether it has samples yet or not, in its order."""
    found = []
    for collector in registry._collector_to_names:  # there is no public way to the names of labels
        for family in collector.collect():
            labels = getattr(collector, "_labelnames", ()) or getattr(family, "_labelnames", ())
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found.append(Family(name, family.type, tuple(labels), family.documentation))
    return found


def registries() -> dict[str, CollectorRegistry]:
    """By stage, and that of a ranker."""
    all_of = {name: CollectorRegistry() for name in ("ingest", "sequence", "encode", "ranker")}
    IngestMetrics(all_of["ingest"])
    SequenceMetrics(all_of["sequence"])
    EncodeMetrics(all_of["encode"])
    ReaderMetrics(all_of["ranker"])
    return all_of


def reference() -> str:
    """The whole page, as Markdown."""
    own = {name: families(registry) for name, registry in registries().items()}
    shared = [family for family in own["ingest"] if family in own["encode"]]
    sections = [_section("Every stage", shared)]
    for name, found in own.items():
        title = "Rankers" if name == "ranker" else name.capitalize()
        sections.append(_section(title, [family for family in found if family not in shared]))
    return _HEAD + "".join(sections)


def _section(title: str, rows: Iterable[Family]) -> str:
    lines = (
        f"| `{row.name}` | {row.kind} | {', '.join(f'`{label}`' for label in row.labels)} | {row.meaning} |\n"
        for row in rows
    )
    return _TABLE.format(title=title) + "".join(lines)


if __name__ == "__main__":
    print(reference(), end="")
