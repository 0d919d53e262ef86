"""The files of deploy/ against their schemas, and against each other."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from clipper import __version__
from clipper.client import STOP_TIMEOUT_S
from scripts.real_models import environment
from tests.wheels import ROOT

DEPLOY = ROOT / "deploy"
MANIFESTS = DEPLOY / "kubernetes"
# The adapter's rule is a value of its own configuration, and files for kubectl and for Clipper are none of Kubernetes'.
NO_OBJECTS = {"prometheus-adapter.yaml", "kustomization.yaml", "clipper.yaml"}
# What may be added, each in a folder of its own.
COMPONENTS = ("redis", "by-queries")
# What a stop takes beyond the drain delay: 11 s for queries in flight, and what models take to end.
DRAIN_S = 30


def check(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def manifests(folder: Path = MANIFESTS) -> dict[str, Any]:
    paths = [path for path in folder.glob("*.yaml") if path.name not in NO_OBJECTS]
    return {path.name: yaml.safe_load(path.read_text()) for path in paths}


def kustomization(folder: Path = MANIFESTS) -> Any:
    return yaml.safe_load((folder / "kustomization.yaml").read_text())


def unit() -> str:
    return (DEPLOY / "systemd/clipper.service").read_text()


def seconds(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found is not None, pattern
    return int(found[1])


def test_manifests_are_what_kubernetes_takes() -> None:
    folders = MANIFESTS, *(MANIFESTS / name for name in COMPONENTS)
    paths = [str(folder / name) for folder in folders for name in manifests(folder)]
    told = check(str(environment("deploy")), "-m", "kubernetes_validate", "--strict", *paths)
    assert told.count(" passed for resource ") == len(paths) == 9


def test_a_field_that_kubernetes_does_not_have_is_found(tmp_path: Path) -> None:
    text = (MANIFESTS / "service.yaml").read_text()
    (tmp_path / "service.yaml").write_text(text.replace("targetPort", "targetport"))
    with pytest.raises(AssertionError, match="targetport"):
        check(str(environment("deploy")), "-m", "kubernetes_validate", "--strict", str(tmp_path / "service.yaml"))


def test_the_compose_file_is_what_compose_takes() -> None:
    schema = ["--builtin-schema", "vendor.compose-spec", str(DEPLOY / "docker/compose.yaml")]
    assert "ok" in check(str(environment("deploy")), "-m", "check_jsonschema", *schema)


def test_manifests_speak_of_the_same_pods_ports_and_names() -> None:
    found = manifests()
    assert sorted(kustomization()["resources"]) == sorted(found)
    deployment = found["deployment.yaml"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    selectors = [
        deployment["selector"]["matchLabels"],
        found["service.yaml"]["spec"]["selector"],
        found["disruption.yaml"]["spec"]["selector"]["matchLabels"],
        found["network.yaml"]["spec"]["podSelector"]["matchLabels"],
    ]
    pod = deployment["template"]["spec"]
    selectors += [each["labelSelector"]["matchLabels"] for each in pod["topologySpreadConstraints"]]
    assert all(selector == labels for selector in selectors)
    serves = pod["containers"][0]
    ports = {port["name"]: port["containerPort"] for port in serves["ports"]}
    assert ports == {"queries": 1337, "management": 1338, "grpc": 1339}
    named = [port["targetPort"] for port in found["service.yaml"]["spec"]["ports"]]
    named += [port["port"] for rule in found["network.yaml"]["spec"]["ingress"] for port in rule["ports"]]
    named += [serves[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "readiness", "liveness")]
    assert set(named) == set(ports)
    scaled = found["autoscaler.yaml"]["spec"]["scaleTargetRef"]
    assert (scaled["kind"], scaled["name"]) == ("Deployment", found["deployment.yaml"]["metadata"]["name"])
    # The autoscaler's own number would be undone by each apply.
    assert "replicas" not in deployment
    configured = [volume["configMap"]["name"] for volume in pod["volumes"] if "configMap" in volume]
    (files,) = kustomization()["configMapGenerator"]
    assert configured == [files["name"]] and all((MANIFESTS / name).is_file() for name in files["files"])
    (image,) = kustomization()["images"]
    assert {each["image"] for each in pod["containers"]} == {image["name"]} and image["newTag"] == __version__


def test_components_are_of_the_same_pods_and_secret() -> None:
    pod = manifests()["deployment.yaml"]["spec"]["template"]
    folder = MANIFESTS / "redis"
    found, added = manifests(folder), kustomization(folder)
    assert sorted(added["resources"]) == sorted(found)
    (secret,) = added["secretGenerator"]
    wanted = pod["spec"]["containers"][0]["env"][0]["valueFrom"]["secretKeyRef"]
    (literal,) = secret["literals"]
    name, port = found["service.yaml"]["metadata"]["name"], found["service.yaml"]["spec"]["ports"][0]["port"]
    assert (secret["name"], literal) == (wanted["name"], f"{wanted['key']}=redis://{name}:{port}/0")
    redis = found["redis.yaml"]["spec"]
    labels = redis["template"]["metadata"]["labels"]
    assert redis["selector"]["matchLabels"] == found["service.yaml"]["spec"]["selector"] == labels
    (rule,) = found["network.yaml"]["spec"]["ingress"]
    assert found["network.yaml"]["spec"]["podSelector"]["matchLabels"] == labels
    assert rule["from"] == [{"podSelector": {"matchLabels": pod["metadata"]["labels"]}}]
    compose = yaml.safe_load((DEPLOY / "docker/compose.yaml").read_text())["services"]["redis"]
    (container,) = redis["template"]["spec"]["containers"]
    assert (container["image"], " ".join(container["args"])) == (compose["image"], compose["command"])
    (patch,) = kustomization(MANIFESTS / "by-queries")["patches"]
    scaler, own = manifests(MANIFESTS / "by-queries")[patch["path"]], manifests()["autoscaler.yaml"]
    assert scaler["metadata"]["name"] == own["metadata"]["name"]
    assert scaler["spec"]["scaleTargetRef"] == own["spec"]["scaleTargetRef"]


def test_nobody_waits_shorter_than_a_stop_takes() -> None:
    pod = manifests()["deployment.yaml"]["spec"]["template"]["spec"]
    arguments = " ".join(pod["containers"][0]["args"])
    delay_s = seconds(r"--drain-delay=(\d+)", arguments)
    assert pod["terminationGracePeriodSeconds"] >= delay_s + DRAIN_S
    probe = pod["containers"][0]["readinessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] < delay_s / 2
    assert seconds(r"TimeoutStopSec=(\d+)", unit()) >= seconds(r"--drain-delay (\d+)", unit()) + STOP_TIMEOUT_S
    service = yaml.safe_load((DEPLOY / "docker/compose.yaml").read_text())["services"]["clipper"]
    delay_s = seconds(r"--drain-delay=(\d+)", " ".join(service["command"]))
    assert seconds(r"(\d+)s", service["stop_grace_period"]) >= delay_s + DRAIN_S


def test_systemd_takes_the_unit_and_finds_little_exposed(tmp_path: Path) -> None:
    # The program has to be there, at a path without a space; the user need not.
    program = tmp_path / "clipper"
    program.symlink_to(Path(sys.executable).parent / "clipper")
    own = unit().replace("/opt/clipper/bin/clipper", str(program))
    path = tmp_path / "clipper.service"
    path.write_text(own)
    assert check("systemd-analyze", "verify", str(path)) == ""
    # From 0 to 10, in tenths.
    check("systemd-analyze", "security", "--offline=true", "--threshold=16", str(path))
    # A stop by command ends with 0, which on-failure leaves alone; a supervisor that is killed leaves its workers.
    assert "\nRestart=on-failure\n" in own and "\nKillMode=process\n" in own


def test_the_compose_file_mounts_what_is_there() -> None:
    compose = DEPLOY / "docker"
    services = yaml.safe_load((compose / "compose.yaml").read_text())["services"]
    mounted = [volume.split(":")[0] for volume in services["prometheus"]["volumes"]]
    assert all((compose / path).resolve().is_file() for path in mounted if path.startswith("."))
    rules = yaml.safe_load((compose / "prometheus.yml").read_text())["rule_files"]
    assert all(any(volume.endswith(f"/{rule}:ro") for volume in services["prometheus"]["volumes"]) for rule in rules)
