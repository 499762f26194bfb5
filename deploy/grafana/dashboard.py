"""The dashboard that Grafana provisions, dashboards/slipstream.json, from panels.toml; a test compares the two.

Run: python deploy/grafana/dashboard.py > deploy/grafana/dashboards/slipstream.json

It is read from top to bottom: are states fresh; is anything late or down; is anything lost or bad; do rankers get states; then
how much flows, where time goes, and what runs.
"""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any, Literal

import msgspec

PANELS = Path(__file__).parent / "panels.toml"
_COLUMNS = 24
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


class Panel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """panels.toml says what each field is."""

    title: str
    text: str
    unit: str
    queries: dict[str, str]
    kind: Literal["timeseries", "stat", "table"] = "timeseries"
    limit: float | None = None
    low: bool = False
    width: int = 8
    log: bool = False
    stacked: bool = False


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    title: str
    panel: list[Panel]


def rows() -> list[Row]:
    return msgspec.toml.decode(PANELS.read_bytes(), type=dict[str, list[Row]])["row"]


def dashboard() -> dict[str, Any]:
    """As Grafana 10 and later take it."""
    ids, panels, y = count(1), [], 0
    for row in rows():
        panels.append(
            {
                "type": "row",
                "title": row.title,
                "id": next(ids),
                "collapsed": False,
                "panels": [],
                "gridPos": {"x": 0, "y": y, "w": _COLUMNS, "h": 1},
            }
        )
        y, x, height = y + 1, 0, 0
        for panel in row.panel:
            if x + panel.width > _COLUMNS:
                x, y, height = 0, y + height, 0
            height = max(height, 5 if panel.kind == "stat" else 8)
            panels.append(_panel(panel, next(ids), {"x": x, "y": y, "w": panel.width, "h": height}))
            x += panel.width
        y += height
    return {
        "id": None,
        "uid": "slipstream",
        "title": "Slipstream",
        "description": "From top to bottom: fresh, late, lost, read; then how much, where time goes, what runs.",
        "tags": ["slipstream"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "annotations": {"list": [_alerts_on_the_time_axis()]},
        "templating": {
            "list": [
                {"type": "datasource", "name": "datasource", "label": "Prometheus", "query": "prometheus"},
                {"type": "adhoc", "name": "filters", "label": "Only", "datasource": _SOURCE, "filters": []},
            ]
        },
        "panels": panels,
    }


def _alerts_on_the_time_axis() -> dict[str, Any]:
    return {
        "name": "Alerts",
        "datasource": _SOURCE,
        "enable": True,
        "iconColor": "red",
        "expr": 'ALERTS{alertname=~"Slipstream.*", alertstate="firing"}',
        "titleFormat": "{{alertname}}",
        "textFormat": "{{stage}} {{instance}}",
    }


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    table = panel.kind == "table"
    targets = [
        {
            "refId": chr(ord("A") + i),
            "datasource": _SOURCE,
            "expr": " ".join(expr.split()),
            "legendFormat": legend,
            **({"instant": True, "range": False} if table else {}),
        }
        for i, (legend, expr) in enumerate(panel.queries.items())
    ]
    made: dict[str, Any] = {
        "type": panel.kind,
        "id": number,
        "title": panel.title,
        "description": " ".join(panel.text.split()),
        "datasource": _SOURCE,
        "gridPos": place,
        "targets": targets,
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _OPTIONS[panel.kind],
    }
    if table:  # a line for each series, named by its legend
        made["transformations"] = [{"id": "reduce", "options": {"reducers": ["lastNotNull"]}}]
    return made


_OPTIONS: dict[str, dict[str, Any]] = {
    "timeseries": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
    "stat": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "background", "textMode": "value_and_name"},
    "table": {"showHeader": False},
}


def _defaults(panel: Panel) -> dict[str, Any]:
    below, above = ("red", "green") if panel.low else ("green", "red")
    steps: list[dict[str, Any]] = [{"color": below if panel.limit is not None else "green", "value": None}]
    if panel.limit is not None:
        steps.append({"color": above, "value": panel.limit})
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}}
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "fillOpacity": 30 if panel.stacked else 0,
            "stacking": {"mode": "normal" if panel.stacked else "none"},
            "scaleDistribution": {"type": "log", "log": 10} if panel.log else {"type": "linear"},
            "thresholdsStyle": {"mode": "off" if panel.limit is None else "dashed"},
        }
    if panel.log:
        del defaults["min"]
    return defaults


if __name__ == "__main__":
    print(json.dumps(dashboard(), indent=1))
