"""The queries of the dashboard and of the alert rules, and what of them the code does not export."""

from __future__ import annotations

import json
import re
import runpy
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import promql_parser
import yaml
from prometheus_client import CollectorRegistry

from slipstream.metrics_reference import families, registries

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "deploy/grafana/dashboards/slipstream.json"
RULES = ROOT / "deploy/prometheus/alerts.yml"
#: Prometheus gives them to every series.
TARGET_LABELS = frozenset({"job", "instance"})
_ENDINGS = {"histogram": ("_bucket", "_sum", "_count")}


class Selector(NamedTuple):
    """A metric as a query names it.

    Attributes:
        matchers: label, operator and value.
    """

    name: str
    matchers: tuple[tuple[str, str, str], ...]

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(_fits(operator, labels.get(label, ""), value) for label, operator, value in self.matchers)


def _fits(operator: str, found: str, value: str) -> bool:
    fits = re.fullmatch(value, found) is not None if "~" in operator else found == value
    return fits is not operator.startswith("!")


class Series(NamedTuple):
    """
    Attributes:
        samples: labels of those that are there before anything happened.
    """

    labels: frozenset[str]
    samples: list[dict[str, str]]


Exported = dict[str, Series]


def exported() -> Exported:
    """By the name that queries use: what the real registries of stages, rankers and the example service hold."""
    service = CollectorRegistry()
    runpy.run_path(str(ROOT / "examples/ranking-service/ranking_service/metrics.py"))["ServiceMetrics"](service)
    found: Exported = {}
    for registry in (*registries().values(), service):
        samples = defaultdict(list)
        for family in registry.collect():
            for sample in family.samples:
                samples[sample.name].append(sample.labels)
        for name, kind, labels, _ in families(registry):
            for ending in _ENDINGS.get(kind, ("",)):
                before = found.get(name + ending, Series(frozenset(), []))
                own = frozenset(labels) | ({"le"} if ending == "_bucket" else set())
                found[name + ending] = Series(before.labels | own, before.samples + samples[name + ending])
    return found


def parsed(expr: str) -> promql_parser.Expr:
    """
    Raises:
        ValueError: it is no PromQL.
    """
    return promql_parser.parse(expr.replace("$__rate_interval", "5m"))


def _nodes(expr: str) -> list[Any]:
    nodes: list[Any] = []
    promql_parser.walk(parsed(expr), nodes.append)
    return nodes


def selectors(expr: str) -> list[Selector]:
    signs = {"Equal": "=", "NotEqual": "!=", "Re": "=~", "NotRe": "!~"}
    return [
        Selector(
            node.name, tuple((m.name, signs[str(m.op).rpartition(".")[2]], m.value) for m in node.matchers.matchers)
        )
        for node in _nodes(expr)
        if isinstance(node, promql_parser.VectorSelector)
    ]


def labels_named(expr: str) -> set[str]:
    """In by, on, group_left and the like."""
    named: set[str] = set()
    for node in _nodes(expr):
        modifier = getattr(node, "modifier", None)
        for of in (modifier, getattr(modifier, "matching", None)):
            named |= set(getattr(of, "labels", None) or ())
    return named


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def alerts() -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for rule in rules() if "alert" in rule}


def recorded() -> Exported:
    """What recording rules make."""
    return {rule["record"]: Series(frozenset(labels_named(rule["expr"])), []) for rule in rules() if "record" in rule}


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    """Where each query stands, and the query."""
    for rule in rules():
        yield rule.get("alert") or rule["record"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield f"panel {panel['title']!r}", target["expr"]


def problems(expr: str, known: Exported) -> list[str]:
    """Metrics, labels and values that nobody exports."""
    found, labels = [], set(TARGET_LABELS)
    for selector in selectors(expr):
        if selector.name not in known:
            found.append(f"no metric {selector.name}")
            continue
        series = known[selector.name]
        labels |= series.labels
        for label, operator, value in selector.matchers:
            if label not in series.labels:
                found.append(f"{selector.name} has no label {label}")
            values = {sample[label] for sample in series.samples if label in sample}
            if values and not any(_fits(operator.removeprefix("!"), v, value) for v in values):
                found.append(f"{selector.name}: {label} is never {value}, but {', '.join(sorted(values))}")
    return found + [f"no metric of the query has a label {label}" for label in labels_named(expr) - labels]
