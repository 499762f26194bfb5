"""docker-compose.yml and what it mounts. tests/slipstream/stack/test_docker.py compares its Kafka with the local broker."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from typing import Any

import pytest
import yaml

from edge.process import FAREWELL_S
from tests.deploy.checked import ROOT, assert_command_exists, image_environment, ours, settings_of, stages

FILE = ROOT / "docker-compose.yml"
COMPOSE: dict[str, Any] = yaml.safe_load(FILE.read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if "build" in service]
PROFILES = sorted({profile for service in SERVICES.values() for profile in service.get("profiles", ())})


def test_the_file_keeps_the_schema() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_without_a_profile_it_is_kafka_and_redis() -> None:
    """`slipstream up` and the tests' fixtures count on it."""
    assert [name for name, service in SERVICES.items() if "profiles" not in service] == ["kafka", "redis"]


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_brings_what_its_services_wait_for(profile: str) -> None:
    active = {name for name, service in SERVICES.items() if profile in service.get("profiles", [profile])}
    for name in active:
        waits = SERVICES[name].get("depends_on", {})
        for other, how in waits.items() if isinstance(waits, dict) else ((other, {}) for other in waits):
            assert other in SERVICES
            assert other in active or how.get("required") is False, f"{profile}: {name} waits for {other}"
            assert how.get("condition") != "service_healthy" or "healthcheck" in SERVICES[other]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_may_do_little_and_is_seen_from_this_machine_alone(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["read_only"] is (name != "kafka")
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert "build" in service or re.search(r":v?\d+\.\d+", service["image"]), service["image"]
    for volume in service.get("volumes", ()):
        if volume.startswith("./"):
            assert (ROOT / volume.partition(":")[0]).exists(), volume
            assert volume.endswith(":ro")


@pytest.mark.parametrize("name", OURS)
def test_our_services_have_real_settings_and_commands(name: str) -> None:
    service = SERVICES[name]
    target = service["build"]["target"]
    assert service["image"] == f"slipstream:{target}"
    assert (ROOT / service["build"]["dockerfile"]).is_file()
    settings_of(ours(image_environment(target)), service.get("environment", {}))
    if name == "ranking":
        return  # below
    if "entrypoint" in service:
        _, _, command = service["command"][0].partition("exec slipstream ")
        assert_command_exists(command.split())
    else:
        assert_command_exists(service["command"])


def test_the_ranking_service_takes_its_options() -> None:
    tree = ast.parse((ROOT / "examples/ranking-service/ranking_service/__main__.py").read_text())
    (serve,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "serve"]
    options = {"--" + argument.arg.replace("_", "-") for argument in serve.args.args}
    assert {text for text in SERVICES["ranking"]["command"] if text.startswith("--")} <= options


def test_a_stage_has_the_time_to_end_by_itself() -> None:
    for name in OURS:
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) > 3 * FAREWELL_S


def test_prometheus_finds_every_stage_and_its_rules() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    (found,) = jobs["stages"]["dns_sd_configs"]
    stages_of = {name for name in OURS if set(SERVICES[name]["command"]) & {"ingest", "sequence", "encode"}}
    assert set(found["names"]) == stages_of
    assert ("EXPOSE", str(found["port"])) in stages()["cpu"]
    assert jobs["ranking"]["static_configs"] == [{"targets": ["ranking:8080"]}]
    for rules in config["rule_files"]:
        assert (ROOT / "deploy/prometheus" / rules).is_file(), rules


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed: apt-get install prometheus")
def test_prometheus_takes_its_configuration() -> None:
    command = ["promtool", "check", "config", str(ROOT / "deploy/prometheus/prometheus.yml")]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    provisioning = ROOT / "deploy/grafana/provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((provisioning / "dashboards/slipstream.yml").read_text())["providers"]
    mounted = dict(volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"])
    (where,) = [ROOT / here for here, there in mounted.items() if there == provider["options"]["path"]]
    assert list(where.glob("*.json"))
    for dashboard in where.glob("*.json"):
        uids = set(re.findall(r'"uid": "([^"]*)",?\s*"type": "prometheus"', dashboard.read_text()))
        uids |= set(re.findall(r'"type": "prometheus",\s*"uid": "([^"]*)"', dashboard.read_text()))
        assert uids <= {source["uid"], "${datasource}", "$datasource"}, f"{dashboard.name}: {uids}"
