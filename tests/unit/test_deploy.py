"""Image, compose file and manifests: valid, about commands and settings that exist, no wider open than they must be."""

from __future__ import annotations

import gzip
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from typer.main import get_command

from app.cli import app
from app.settings import Settings
from app.stream.transport import DRAIN_TIMEOUT_S
from schemas.topics import BY_NAME
from tests.support.deploy import DEPLOY, ROOT, documents

KUBERNETES = "1.34"
CUSTOM = {"ScaledObject", "PodMonitor", "Kustomization"}  # their schemas are not Kubernetes' own
CRDS = ROOT / "tests" / "support" / "crds"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
OBJECTS = [(path.name, document) for path in MANIFESTS for document in documents(path)]
SETTINGS = {f"NUDGE_{name.upper()}" for name in Settings.model_fields}
COMPOSE = documents(DEPLOY / "compose.yaml")[0]
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def commands() -> set[tuple[str, ...]]:
    """Every `nudge` command as its words."""

    def walk(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        children = getattr(command, "commands", None)
        if children is None:
            yield words
        for name, child in (children or {}).items():
            yield from walk(child, (*words, name))

    return set(walk(get_command(app), ()))


def names_command(arguments: list[str]) -> bool:
    words = tuple(itertools.takewhile(lambda argument: not argument.startswith("-"), arguments))
    return words in commands()


def named(kind: str, name: str) -> dict[str, Any]:
    (found,) = [
        document for _, document in OBJECTS if document["kind"] == kind and document["metadata"]["name"] == name
    ]
    return found


def pods() -> list[tuple[str, dict[str, Any]]]:
    """Name and pod spec of everything that runs."""
    return [
        (document["metadata"]["name"], document["spec"]["template"]["spec"])
        for _, document in OBJECTS
        if document["kind"] in ("StatefulSet", "Deployment", "Job")
    ]


# -- Kubernetes


@pytest.mark.parametrize(
    ("name", "document"),
    [(name, document) for name, document in OBJECTS if document["kind"] not in CUSTOM],
    ids=[f"{name}:{document['kind']}" for name, document in OBJECTS if document["kind"] not in CUSTOM],
)
def test_a_manifest_is_valid_kubernetes(name: str, document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, KUBERNETES, strict=True)


def closed(schema: Any) -> Any:
    """The schema, refusing fields that it does not name, as `kubectl --validate=strict` does."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    named = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if named and "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        found["additionalProperties"] = False
    return found


def check_custom(document: dict[str, Any]) -> None:
    stored = json.loads(gzip.decompress((CRDS / f"{document['kind']}.json.gz").read_bytes()))
    assert document["apiVersion"] == stored["apiVersion"]
    schema = closed(stored["schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    jsonschema.validate(document, schema, jsonschema.Draft202012Validator)


@pytest.mark.parametrize("kind", ["ScaledObject", "PodMonitor"])
def test_a_custom_resource_is_as_its_operator_wants_it(kind: str) -> None:
    [document] = [document for _, document in OBJECTS if document["kind"] == kind]
    check_custom(document)
    with pytest.raises(jsonschema.ValidationError, match="selecter"):
        check_custom(document | {"spec": document["spec"] | {"selecter": {}}})


def test_a_misspelt_field_would_be_found() -> None:
    broken = named("StatefulSet", "nudge-worker") | {"spec": {"replica": 3}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, KUBERNETES, strict=True)


@pytest.mark.parametrize(("name", "spec"), pods(), ids=[name for name, _ in pods()])
def test_a_pod_may_do_no_more_than_it_must(name: str, spec: dict[str, Any]) -> None:
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert str(spec["securityContext"]["runAsUser"]) in DOCKERFILE
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in spec["containers"]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize(("name", "spec"), pods(), ids=[name for name, _ in pods()])
def test_a_pod_runs_a_command_with_settings_that_exist(name: str, spec: dict[str, Any]) -> None:
    for container in spec["containers"]:
        assert names_command(container["args"])
        assert container["image"] == "nudge"
        assert {variable["name"] for variable in container.get("env", [])} <= SETTINGS
    assert set(named("ConfigMap", "nudge")["data"]) <= SETTINGS


def test_a_worker_keeps_its_name_and_its_disk() -> None:
    worker = named("StatefulSet", "nudge-worker")["spec"]
    (container,) = worker["template"]["spec"]["containers"]
    environment = {variable["name"]: variable.get("valueFrom") for variable in container["env"]}
    assert environment["NUDGE_INSTANCE_ID"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    claims = {claim["metadata"]["name"] for claim in worker["volumeClaimTemplates"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert mounts["/var/lib/nudge"] in claims
    assert "NUDGE_DATA_DIR=/var/lib/nudge" in DOCKERFILE
    assert worker["serviceName"] == named("Service", "nudge-worker")["metadata"]["name"]


@pytest.mark.parametrize(("kind", "name"), [("StatefulSet", "nudge-worker"), ("Deployment", "nudge-sender")])
def test_what_works_off_partitions_has_time_to_drain_and_is_asked_how_it_is(kind: str, name: str) -> None:
    spec = named(kind, name)["spec"]
    pod, (container,) = spec["template"]["spec"], spec["template"]["spec"]["containers"]
    assert pod["terminationGracePeriodSeconds"] >= DRAIN_TIMEOUT_S + 20  # then commit, flush, close
    liveness, readiness = container["livenessProbe"], container["readinessProbe"]
    assert (liveness["httpGet"]["path"], readiness["httpGet"]["path"]) == ("/livez", "/readyz")
    # The watchdog speaks first: it says why, a kill by the kubelet does not.
    assert liveness["periodSeconds"] * liveness["failureThreshold"] > Settings.model_fields["watchdog_block_s"].default
    assert pod["topologySpreadConstraints"][0]["labelSelector"] == spec["selector"]
    budget = named("PodDisruptionBudget", name)["spec"]
    assert (budget["maxUnavailable"], budget["unhealthyPodEvictionPolicy"]) == (1, "AlwaysAllow")
    assert budget["selector"] == spec["selector"]


def test_a_worker_is_given_the_memory_that_the_capacity_guide_plans_with() -> None:
    (planned,) = re.findall(r"provide \| (\d+) MB a worker", (ROOT / "docs" / "capacity.md").read_text())
    (container,) = named("StatefulSet", "nudge-worker")["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"]["memory"] == f"{planned}Mi"
    assert "cpu" not in container["resources"]["limits"], "a throttled worker misses heartbeats"


def test_a_sender_can_be_given_the_files_of_push_services() -> None:
    pod = named("Deployment", "nudge-sender")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    [secret] = [volume["secret"] for volume in pod["volumes"] if "secret" in volume]
    assert secret["optional"] is True, "the console and the webhook need none"
    folder = next(mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "push")
    told = (ROOT / "docs" / "how-to" / "kubernetes.md").read_text()
    assert f"create secret generic {secret['secretName']}" in told
    for name in ("fcm_credentials", "apns_key", "webpush_key"):
        assert f"NUDGE_{name.upper()}={folder}/" in told


def test_a_worker_finds_its_policy_where_it_is_mounted() -> None:
    (container,) = named("StatefulSet", "nudge-worker")["spec"]["template"]["spec"]["containers"]
    policy = next(variable["value"] for variable in container["env"] if variable["name"] == "NUDGE_POLICY")
    assert str(Path(policy).parent) in {mount["mountPath"] for mount in container["volumeMounts"]}
    for name in ("worker-1", "worker-2"):
        service = COMPOSE["services"][name]
        assert any(f":{service['environment']['NUDGE_POLICY']}:ro" in volume for volume in service["volumes"])


def test_the_autoscaler_follows_the_lag_of_a_topic_and_never_exceeds_its_partitions() -> None:
    scaled = named("ScaledObject", "nudge-worker")["spec"]
    (trigger,) = scaled["triggers"]
    shared = named("ConfigMap", "nudge")["data"]
    assert trigger["metadata"]["topic"] in BY_NAME
    assert trigger["metadata"]["consumerGroup"] == Settings.model_fields["app_id"].default
    assert trigger["metadata"]["bootstrapServers"] == shared["NUDGE_BROKER"]
    assert scaled["maxReplicaCount"] == int(shared["NUDGE_PARTITIONS"])
    target = scaled["scaleTargetRef"]
    assert named(target["kind"], target["name"])["apiVersion"] == target["apiVersion"]


def test_every_selector_finds_pods() -> None:
    labels = [
        document["spec"]["template"]["metadata"]["labels"].items()
        for _, document in OBJECTS
        if document["kind"] in ("StatefulSet", "Deployment")
    ]
    for _, document in OBJECTS:
        spec = document.get("spec", {})
        selector = spec.get("podSelector") or spec.get("selector")
        if selector is None or document["kind"] == "Job":
            continue
        wanted = selector.get("matchLabels", selector).items()
        assert any(wanted <= found for found in labels), (document["kind"], document["metadata"]["name"])


def test_the_jobs_that_the_rules_select_are_the_pods_names() -> None:
    monitor = named("PodMonitor", "nudge")["spec"]
    names = {
        document["spec"]["template"]["metadata"]["labels"][monitor["jobLabel"]]
        for _, document in OBJECTS
        if document["kind"] in ("StatefulSet", "Deployment")
    }
    (config,) = documents(DEPLOY / "prometheus" / "prometheus.yml")
    assert {job["job_name"] for job in config["scrape_configs"]} <= names


def test_the_kustomization_holds_every_file_that_needs_no_operator() -> None:
    (kustomization,) = documents(DEPLOY / "kubernetes" / "kustomization.yaml")
    without = {"kustomization.yaml", "autoscaling.yaml", "monitoring.yaml"}
    assert set(kustomization["resources"]) == {path.name for path in MANIFESTS} - without


# -- compose


def test_a_key_that_stands_twice_would_be_found(tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("services:\n  kafka: {image: a, image: b}\n")
    with pytest.raises(yaml.YAMLError, match="twice"):
        documents(broken)


def test_no_key_stands_twice_in_any_yaml_file() -> None:
    for path in [*DEPLOY.rglob("*.y*ml"), ROOT / "compose.yaml", *(ROOT / "policies").glob("*.yaml")]:
        assert documents(path), path


def test_compose_runs_commands_with_settings_that_exist() -> None:
    ours = {name: service for name, service in COMPOSE["services"].items() if service["image"] == "nudge"}
    assert {"topics", "worker-1", "worker-2", "sender", "console"} <= set(ours)
    for service in ours.values():
        assert names_command(service["command"])
        assert set(service["environment"]) <= SETTINGS
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
    identities = [
        service["environment"]["NUDGE_INSTANCE_ID"]
        for service in ours.values()
        if "NUDGE_INSTANCE_ID" in service["environment"]
    ]
    assert len(identities) == len(set(identities)) == 3


def test_compose_publishes_on_loopback_only() -> None:
    for name, service in COMPOSE["services"].items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name


def test_compose_mounts_files_that_exist_and_volumes_that_are_declared() -> None:
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).exists(), source
            else:
                assert source in COMPOSE["volumes"], source
        for other in service.get("depends_on", []):
            assert other in COMPOSE["services"]


def test_prometheus_scrapes_processes_that_compose_runs() -> None:
    (config,) = documents(DEPLOY / "prometheus" / "prometheus.yml")
    port = str(Settings.model_fields["http_port"].default)
    for job in config["scrape_configs"]:
        for target in job["static_configs"][0]["targets"]:
            host, _, target_port = target.partition(":")
            assert host in COMPOSE["services"], host
            assert target_port == port or host == "console"


def test_both_compose_files_run_the_kafka_of_the_tests() -> None:
    pom = (ROOT / "tests" / "support" / "kafka" / "pom.xml").read_text()
    versions = re.findall(r"<kafka\.version>(\S+)</kafka\.version>", pom)
    (other,) = documents(ROOT / "compose.yaml")
    for services in (COMPOSE["services"], other["services"]):
        assert services["kafka"]["image"].removeprefix("apache/kafka:") in versions


# -- the image


def test_the_image_runs_as_an_ordinary_user_and_copies_what_is_shipped() -> None:
    final = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER 10001:10001$", final, re.MULTILINE)
    assert 'ENTRYPOINT ["nudge"]' in final
    assert not re.search(r"\b0\.0\.0\.0\b", DOCKERFILE)
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert kept >= {"app", "agents", "schemas", "tables", "pyproject.toml", "setup.py", "requirements.lock"}
    assert kept >= {"README.md", "LICENSE"}
    assert all((ROOT / name).exists() for name in kept)


def test_the_image_sets_settings_that_exist() -> None:
    assert set(re.findall(r"\bNUDGE_[A-Z_]+\b", DOCKERFILE)) <= SETTINGS | {"NUDGE_COMPILE"}


# -- addresses


def test_nothing_listens_on_all_addresses_but_what_is_inside_of_a_container() -> None:
    allowed = {
        "compose.yaml": {"NUDGE_HTTP_HOST: 0.0.0.0", "NUDGE_CONSOLE_HOST: 0.0.0.0"},
        "network.yaml": {"cidr: 0.0.0.0/0"},
    }
    for path in [*DEPLOY.rglob("*"), ROOT / "compose.yaml", ROOT / "Procfile"]:
        if path.is_file() and path.suffix in {".yaml", ".yml", ".json", ""}:
            check_addresses(path, allowed.get(path.name, set()) if DEPLOY in path.parents else set())


def check_addresses(path: Path, allowed: set[str]) -> None:
    for line in path.read_text().splitlines():
        stated = line.partition("#")[0].strip()
        assert not re.search(r"\b0\.0\.0\.0\b", stated) or stated in allowed, f"{path.name}: {stated}"
