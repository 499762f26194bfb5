"""The manifests, rendered by `kubectl kustomize`, against the schemas of Kubernetes, KEDA and the Prometheus operator."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from edge.health import Health
from edge.process import FAREWELL_S
from schemas.names import Names
from slipstream.settings import Settings
from tests.deploy.checked import ROOT, VERSION, assert_command_exists, image_environment, ours, settings_of, stages

Resource = dict[str, Any]

DIRECTORY = ROOT / "deploy" / "kubernetes"
OVERLAYS = ("example", "gpu")
#: The oldest Kubernetes that they are checked for; the other overlay is checked for the newest that the validator knows.
OLDEST = "1.30"
SCHEMAS = ROOT / "tests" / "deploy" / "schemas"
#: Settings that may hold a secret.
SECRET = {"SLIPSTREAM_KAFKA_OPTIONS", "SLIPSTREAM_REDIS_URL", "SLIPSTREAM_SCHEMA_REGISTRY_URL"}

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="kubectl renders the manifests: install it (1.27 or later)"
)


@cache
def rendered(overlay: str) -> tuple[Resource, ...]:
    command = ["kubectl", "kustomize", str(DIRECTORY / "overlays" / overlay)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert not ran.stderr  # warnings of what is deprecated
    return tuple(yaml.safe_load_all(ran.stdout))


def resources(overlay: str, *kinds: str) -> list[Resource]:
    return [found for found in rendered(overlay) if not kinds or found["kind"] in kinds]


def workloads(overlay: str) -> list[Resource]:
    return resources(overlay, "Deployment", "StatefulSet")


def pods(overlay: str) -> list[tuple[Resource, Resource]]:
    """Each workload and job, and its pod's spec."""
    return [(of, of["spec"]["template"]["spec"]) for of in resources(overlay, "Deployment", "StatefulSet", "Job")]


def containers(overlay: str) -> Iterator[tuple[Resource, Resource]]:
    """Each container of ours, and its pod's spec."""
    for _, pod in pods(overlay):
        for container in pod["containers"]:
            yield container, pod


def named(overlay: str, kind: str, name: str) -> Resource:
    (found,) = [of for of in resources(overlay, kind) if of["metadata"]["name"] == name]
    return found


def environment(overlay: str, container: Resource) -> dict[str, str]:
    """What the container's settings are, with stand-ins for secrets."""
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        found |= named(overlay, "ConfigMap", source["configMapRef"]["name"])["data"]
    for variable in container.get("env", ()):
        secret = {"SLIPSTREAM_KAFKA_OPTIONS": "{}"}.get(variable["name"], "redis://redis:6379/0")
        found[variable["name"]] = variable.get("value", secret)
    return found


def settings(overlay: str, container: Resource) -> Settings:
    target = container["image"].rpartition("-")[2]
    assert target in stages(), container["image"]
    return settings_of(ours(image_environment(target)), environment(overlay, container))


@pytest.mark.parametrize(("overlay", "version"), [("example", kubernetes_validate.latest_version()), ("gpu", OLDEST)])
def test_what_is_rendered_keeps_the_schemas(overlay: str, version: str) -> None:
    for resource in resources(overlay):
        own = SCHEMAS / f"{resource['kind']}.json"
        if own.exists():
            jsonschema.validate(resource, strict(json.loads(own.read_text())))
        else:
            kubernetes_validate.validate(resource, version, strict=True)


def strict(schema: Any) -> Any:
    """As `kubectl apply` with strict validation: no field that the schema does not know."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: strict(part) for key, part in schema.items()}
    if isinstance(made.get("properties"), dict) and made.get("type") == "object":
        made.setdefault("additionalProperties", False)
    if "metadata" in made.get("properties", {}):
        made["properties"]["metadata"] = {"type": "object"}
    return made


def test_a_field_that_a_schema_does_not_know_is_found() -> None:
    (one, *_) = resources("example", "ScaledObject")
    schema = strict(json.loads((SCHEMAS / "ScaledObject.json").read_text()))
    with pytest.raises(jsonschema.ValidationError, match="maxReplicas"):
        jsonschema.validate({**one, "spec": {**one["spec"], "maxReplicas": 4}}, schema)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_commands_settings_and_images_are_real(overlay: str) -> None:
    ran = set()
    for container, pod in containers(overlay):
        assert_command_exists(container["args"])
        assert pod["enableServiceLinks"] is False, "a Service named slipstream-... would set unknown settings"
        settings(overlay, container)
        image, tag = container["image"].rsplit(":", 1)
        assert tag == f"{VERSION}-{'gpu' if overlay == 'gpu' and container['name'] == 'encode' else 'cpu'}"
        ran.add((container["name"], image))
    assert ran == {(name, "registry.example.com/slipstream") for name in ("topics", "ingest", "sequence", "encode")}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_encoders_on_gpus_run_on_gpus_alone(overlay: str) -> None:
    (encode,) = [container for container, _ in containers(overlay) if container["name"] == "encode"]
    on_gpu = overlay == "gpu"
    assert settings(overlay, encode).require_provider == ("cuda" if on_gpu else None)
    assert ("nvidia.com/gpu" in encode["resources"]["limits"]) == on_gpu


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_secret_is_in_a_manifest(overlay: str) -> None:
    assert not resources(overlay, "Secret")
    for container, _ in containers(overlay):
        for variable in container["env"]:
            assert (variable["name"] in SECRET) == ("secretKeyRef" in variable.get("valueFrom", {})), variable
    for config in resources(overlay, "ConfigMap"):
        assert not SECRET & config["data"].keys()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_keep_the_restricted_standard(overlay: str) -> None:
    (namespace,) = resources(overlay, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for _, pod in pods(overlay):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001  # the image's
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in [*pod["containers"], *pod.get("initContainers", ())]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_worker_ends_in_its_time_and_before_it_would_be_given_up(overlay: str) -> None:
    for workload in workloads(overlay):
        pod = workload["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        session_s = settings(overlay, container).session_timeout_ms / 1000
        assert 3 * FAREWELL_S < pod["terminationGracePeriodSeconds"] < session_s


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_probes_ask_what_the_stages_answer(overlay: str) -> None:
    for workload in workloads(overlay):
        (container,) = workload["spec"]["template"]["spec"]["containers"]
        (port,) = container["ports"]
        assert (port["name"], port["containerPort"]) == ("metrics", settings(overlay, container).metrics_port)
        asked = {kind: container[kind]["httpGet"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")}
        assert [probe["path"] for probe in asked.values()] == ["/live", "/live", "/ready"]
        for probe in asked.values():
            assert probe["port"] == port["name"]
            assert Health().answer(probe["path"]) is not None
        assert workload["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"] == str(
            port["containerPort"]
        )


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_disruption_takes_one_worker_of_a_stage(overlay: str) -> None:
    for workload in workloads(overlay):
        budget = named(overlay, "PodDisruptionBudget", workload["metadata"]["name"])
        assert budget["spec"]["maxUnavailable"] == 1
        chosen = budget["spec"]["selector"]["matchLabels"]
        assert chosen == workload["spec"]["selector"]["matchLabels"]
        assert chosen.items() <= workload["spec"]["template"]["metadata"]["labels"].items()


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_scaling_follows_the_lag_of_the_stages_groups(overlay: str) -> None:
    scaled = {of["spec"]["scaleTargetRef"]["name"]: of["spec"] for of in resources(overlay, "ScaledObject")}
    assert scaled.keys() == {workload["metadata"]["name"] for workload in workloads(overlay)}
    for workload in workloads(overlay):
        assert "replicas" not in workload["spec"]  # the autoscaler's
        (container,) = workload["spec"]["template"]["spec"]["containers"]
        told = settings(overlay, container)
        names = Names(told.prefix)
        spec = scaled[workload["metadata"]["name"]]
        assert spec["scaleTargetRef"].get("kind", "Deployment") == workload["kind"]
        assert 2 <= spec["minReplicaCount"] <= spec["maxReplicaCount"] <= told.partitions
        lag = spec["triggers"][0]
        assert lag["authenticationRef"]["name"] == resources(overlay, "TriggerAuthentication")[0]["metadata"]["name"]
        read = {
            "ingest": (names.ingest_group, names.engagements),
            "sequence": (names.sequence_app, names.batches),
            "encode": (names.encoder_group(model_id(overlay)), names.sequences),
        }[container["name"]]
        assert (lag["metadata"]["consumerGroup"], lag["metadata"]["topic"]) == read
        assert lag["metadata"]["bootstrapServersFromEnv"] in environment(overlay, container)


def model_id(overlay: str) -> str:
    (encode,) = [found for found in workloads(overlay) if "encode" in found["metadata"]["name"]]
    (bundle,) = encode["spec"]["template"]["spec"]["initContainers"]
    model = bundle["image"].rpartition(":")[2]
    assert re.fullmatch(r"[0-9a-f]{16}", model)
    assert encode["metadata"]["name"] == f"slipstream-encode-{model}"
    assert encode["metadata"]["labels"]["slipstream.model"] == model
    return model


def test_encoders_read_the_bundle_that_was_copied() -> None:
    (encode,) = [(c, pod) for c, pod in containers("example") if c["name"] == "encode"]
    container, pod = encode
    (copied,) = pod["initContainers"]
    there = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert there["model"]["mountPath"] == str(settings("example", container).bundle)
    assert there["model"]["readOnly"] is True
    assert {"name": "model", "mountPath": copied["command"][-1]} in copied["volumeMounts"]


def test_scrapes_reach_the_pods() -> None:
    (monitor,) = resources("example", "PodMonitor")
    (policy,) = resources("example", "NetworkPolicy")
    for workload in workloads("example"):
        labels = workload["spec"]["template"]["metadata"]["labels"]
        assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
        assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
        assert labels[monitor["spec"]["jobLabel"]] in ("ingest", "sequence", "encode")
    assert policy["spec"]["ingress"][0]["ports"] == [{"protocol": "TCP", "port": 9100}]
