"""Dashboard, alert rules, their unit tests and their pages agree with each other and with the metrics that the code exports.

Run: pytest tests/deploy/test_observability.py. With promtool on the PATH it also runs the rules' unit tests.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import pytest
import yaml

from slipstream.metrics_reference import families, reference, registries
from tests.deploy import observed
from tests.deploy.observed import DASHBOARD, ROOT, RULES, TARGET_LABELS, Exported, alerts, panels, problems, queries

RUNBOOK = ROOT / "docs/alerts.md"
#: Few values each, and none of them a user's or an item's.
LABELS = {
    "stage", "version", "level", "partition", "reason", "store", "kind", "extent", "part", "graph", "provider", "model_id",
    "precision", "status", "by",
}  # fmt: skip


@pytest.fixture(scope="module")
def known() -> Exported:
    of_prometheus = {name: observed.Series(frozenset({"alertname", "alertstate"}), []) for name in ("up", "ALERTS")}
    return observed.exported() | observed.recorded() | of_prometheus


@pytest.mark.parametrize(("where", "expr"), list(queries()), ids=lambda text: text[:40])
def test_a_query_asks_for_what_is_exported(where: str, expr: str, known: Exported) -> None:
    assert problems(expr, known) == [], where


@pytest.mark.parametrize(
    ("expr", "said"),
    [
        ("rate(slipstream_lag_records[5m])", "no metric slipstream_lag_records"),
        ("slipstream_freshness_seconds", "no metric slipstream_freshness_seconds"),
        ('slipstream_messages_total{step="ingest"}', "slipstream_messages_total has no label step"),
        ('slipstream_messages_total{stage="encoder"}', "slipstream_messages_total: stage is never encoder"),
        ('slipstream_encode_refreshes_total{kind=~"apend|full"}', ""),
        ('slipstream_ranker_rows_total{status!="absent"}', "slipstream_ranker_rows_total: status is never absent"),
        ('slipstream_freshness_seconds_bucket{le="0.7"}', "slipstream_freshness_seconds_bucket: le is never 0.7"),
        ("sum by (user) (slipstream_lag_messages)", "no metric of the query has a label user"),
        ("slipstream_ready * on (model) slipstream_build_info", "no metric of the query has a label model"),
    ],
)
def test_what_is_renamed_is_found(expr: str, said: str, known: Exported) -> None:
    found = problems(expr, known)
    assert (found == []) if not said else (len(found) == 1 and found[0].startswith(said)), found


def test_names_are_in_base_units_and_labels_have_few_values() -> None:
    for registry in registries().values():
        for family in families(registry):
            words = set(family.name.split("_"))
            assert not words & {"ms", "millis", "us", "minutes", "hours", "kb", "mb", "kib", "mib", "percent"}, family
            assert family.name.endswith("_total") is (family.kind == "counter"), family
            assert "_bytes" in family.name or "bytes" not in family.meaning.lower(), family
            assert set(family.labels) <= LABELS, family


def test_the_page_of_the_metrics_is_what_the_registries_say() -> None:
    page = (ROOT / "docs/metrics.md").read_text()
    assert page == reference(), "run `python -m slipstream.metrics_reference > docs/metrics.md`"


def test_the_dashboard_is_what_its_list_of_panels_says() -> None:
    script = ROOT / "deploy/grafana/dashboard.py"
    made = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout
    assert DASHBOARD.read_text() == made, f"run `python {script.relative_to(ROOT)} > {DASHBOARD.relative_to(ROOT)}`"


def test_the_dashboard_can_be_provisioned_and_read() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["id"] is None, "Grafana gives it"
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken = [(p["gridPos"]["x"] + x, p["gridPos"]["y"] + y) for p in dashboard["panels"] for x in range(p["gridPos"]["w"])
             for y in range(p["gridPos"]["h"])]  # fmt: skip
    assert len(set(taken)) == len(taken), "panels lie on each other"
    assert max(x for x, _ in taken) < 24
    sources = re.findall(r'"uid": "(\S+)"', json.dumps([panel["datasource"] for panel in panels()]))
    assert set(sources) == {"${datasource}"}
    assert "datasource" in {variable["name"] for variable in dashboard["templating"]["list"]}
    for panel in panels():
        assert len(panel["description"]) > 40, f"{panel['title']}: what is normal, and what is to be done?"


def test_legends_name_labels_that_are_there(known: Exported) -> None:
    for panel in panels():
        for target in panel["targets"]:
            labels = set(TARGET_LABELS).union(*(known[s.name].labels for s in observed.selectors(target["expr"])))
            named = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
            of_alerts = {"stage", "instance"} if "ALERTS" in target["expr"] else set()
            assert named <= labels | of_alerts, panel["title"]


def test_each_alert_says_what_it_is_and_has_its_entry() -> None:
    entries = dict(re.findall(r"^## (Slipstream\w+)\n\n\*(\w+)\*", RUNBOOK.read_text(), re.MULTILINE))
    assert entries == {name: alert["labels"]["severity"] for name, alert in alerts().items()}
    for name, alert in alerts().items():
        assert alert["labels"]["severity"] in ("critical", "warning")
        assert alert["annotations"].keys() == {"summary", "description", "runbook_url"}, name
        assert alert["annotations"]["runbook_url"] == f"docs/alerts.md#{name.lower()}"


def test_each_entry_answers_the_same_questions() -> None:
    for entry in RUNBOOK.read_text().split("\n## Slipstream")[1:]:
        for question in ("**Meaning.**", "**Users notice.**", "**Look.**", "**Do.**"):
            assert question in entry, entry.partition("\n")[0]


def test_each_alert_fires_in_a_unit_test() -> None:
    tests = (RULES.parent / "alerts_test.yml").read_text()
    assert {name for name in alerts() if f'alertname="{name}"' in tests or f"alertname: {name}" in tests} == set(
        alerts()
    )
    assert yaml.safe_load(tests)["rule_files"] == [RULES.name]


def test_the_rules_pass_their_unit_tests() -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed: apt-get install prometheus, or take it from Prometheus' release")
    for command in ("check", "test"):
        file = RULES if command == "check" else RULES.parent / "alerts_test.yml"
        done = subprocess.run(["promtool", command, "rules", file], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
