"""deploy/kubernetes and deploy/helm, as kubectl and helm render them, against schemas and against each other."""

import itertools
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from clipper import __version__
from tests.deploy.kubernetes import CHART, MANIFESTS, Objects, objects, rendered_base, rendered_chart, succeed, validate
from tests.deploy.kubernetes import run as run_tool
from tests.wheels import ROOT

pytestmark = pytest.mark.long

# Components that may be added to the base, and the values of the chart that add the same.
ADDED: dict[str, tuple[str, ...]] = {
    "": (),
    "redis": ("redis.enabled=true",),
    "by-queries": ("autoscaling.queriesPerSecond=500",),
    "keda": ("autoscaling.enabled=false", "replicas=null"),
    "ingress": ("ingress.host=clipper.example.com", "ingress.clusterIssuer=letsencrypt"),
    "gateway": ("gateway.name=gateway", "gateway.namespace=gateway", "gateway.hostnames={clipper.example.com}"),
    "gpus": ("gpus=1",),
}
# Only a chart has these: releases stand beside each other, and Helm gives a map of files no new name after a change.
OF_THE_CHART = {
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
    "checksum/files",
}


def settings(*values: str) -> list[str]:
    return [word for value in values for word in ("--set", value)]


def without(value: Any, keys: set[str]) -> Any:
    """A document without these keys, however deep they are."""
    if isinstance(value, dict):
        return {key: without(each, keys) for key, each in value.items() if key not in keys}
    return [without(each, keys) for each in value] if isinstance(value, list) else value


def base(folder: Path, *components: str) -> Objects:
    """The base, whose maps and secrets have their names without the digest of their content."""
    return objects(re.sub(r"\bclipper-[a-z0-9]{10}\b", "clipper", rendered_base(folder, *components)))


def pod(found: Objects, release: str = "clipper") -> Any:
    return found["Deployment", release]["spec"]["template"]


@pytest.mark.parametrize("component", ADDED)
def test_base_and_chart_render_the_same_objects(component: str, tmp_path: Path) -> None:
    found = base(tmp_path, *filter(None, [component]))
    validate(found, tmp_path)
    chart = objects(rendered_chart(*settings(*ADDED[component])))
    validate(chart, tmp_path)
    # KEDA's object names a Prometheus that only the user knows, so the chart leaves it to the user.
    found.pop(("ScaledObject", "clipper"), None)
    assert without(chart, OF_THE_CHART) == found


def test_every_component_is_tried() -> None:
    assert {path.parent.name for path in MANIFESTS.glob("*/kustomization.yaml")} == ADDED.keys() - {""}
    listed = re.findall(r"^#   - ([\w-]+)$", (MANIFESTS / "kustomization.yaml").read_text(), re.MULTILINE)
    assert listed == [name for name in ADDED if name]


def test_a_field_that_kubernetes_does_not_have_is_found(tmp_path: Path) -> None:
    found = objects(rendered_base(tmp_path).replace("targetPort", "targetport"))
    with pytest.raises(AssertionError, match="targetport"):
        validate(found, tmp_path)


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(lambda folder: objects(rendered_base(folder, *filter(None, ADDED))), id="base"),
        pytest.param(
            lambda _: objects(rendered_chart(*settings(*ADDED["redis"], *ADDED["ingress"]), release="own")), id="chart"
        ),
    ],
)
def test_objects_find_each_other(found: Any, tmp_path: Path) -> None:
    rendered = found(tmp_path)
    release = next(name for kind, name in rendered if kind == "Deployment")
    spec = pod(rendered, release)["spec"]
    labels = pod(rendered, release)["metadata"]["labels"]
    redis = rendered["StatefulSet", f"{release}-redis"]["spec"]
    for name, its in ((release, labels), (f"{release}-redis", redis["template"]["metadata"]["labels"])):
        assert rendered["Service", name]["spec"]["selector"] == its
        assert rendered["NetworkPolicy", name]["spec"]["podSelector"]["matchLabels"] == its
    (rule,) = rendered["NetworkPolicy", f"{release}-redis"]["spec"]["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": labels}}]
    assert rendered["PodDisruptionBudget", release]["spec"]["selector"]["matchLabels"] == labels
    assert [each["labelSelector"]["matchLabels"] for each in spec["topologySpreadConstraints"]] == [labels, labels]
    serves, applies = spec["containers"]
    assert serves["image"] == applies["image"] == f"clipper:{__version__}"
    ports = {port["name"]: port["containerPort"] for port in serves["ports"]}
    assert ports == {"queries": 1337, "management": 1338, "grpc": 1339}
    named = [port["targetPort"] for port in rendered["Service", release]["spec"]["ports"]]
    rules = rendered["NetworkPolicy", release]["spec"]["ingress"]
    named += [port["port"] for rule in rules for port in rule["ports"]]
    named += [serves[f"{kind}Probe"]["httpGet"]["port"] for kind in ("startup", "readiness", "liveness")]
    assert set(named) == set(ports)
    (config,) = [volume["configMap"]["name"] for volume in spec["volumes"] if "configMap" in volume]
    assert ("ConfigMap", config) in rendered
    assert ("Secret", serves["env"][0]["valueFrom"]["secretKeyRef"]["name"]) in rendered
    assert all(name.split("-")[0] == release for _, name in rendered)
    # The autoscaler's own number would be undone by each apply.
    assert "replicas" not in rendered["Deployment", release]["spec"]
    paths = rendered["Ingress", release]["spec"]["rules"][0]["http"]["paths"]
    assert paths[0]["backend"]["service"] == {"name": release, "port": {"name": "queries"}}


def test_redis_runs_as_in_the_compose_file(tmp_path: Path) -> None:
    (container,) = base(tmp_path, "redis")["StatefulSet", "clipper-redis"]["spec"]["template"]["spec"]["containers"]
    compose = yaml.safe_load((ROOT / "deploy/docker/compose.yaml").read_text())["services"]["redis"]
    assert (container["image"], " ".join(container["args"])) == (compose["image"], compose["command"])


def test_the_chart_has_no_fault_that_helm_knows() -> None:
    told = succeed(
        "helm", "lint", "--strict", str(CHART), *settings(*(each for all_ in ADDED.values() for each in all_))
    )
    assert "0 chart(s) failed" in told
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == __version__


def test_notes_say_how_to_ask(tmp_path: Path) -> None:
    shutil.copytree(CHART, tmp_path / "clipper")
    # Helm prints them only beside a cluster, so another template includes them.
    (tmp_path / "clipper/templates/notes.yaml").write_text(
        'kind: Notes\nmetadata: {name: own}\ntext: {{ include (print .Template.BasePath "/NOTES.txt") . | quote }}\n'
    )

    def notes(*values: str) -> str:
        text = succeed("helm", "template", "own", str(tmp_path / "clipper"), *settings(*values))
        return str(objects(text)["Notes", "own"]["text"])

    assert "curl localhost:1337/example/predict" in notes() and "These pods serve an example" in notes()
    assert "https://a.example.com/APPLICATION/predict" in notes("ingress.host=a.example.com")
    assert "an example" not in notes("config=applications: {}")


def test_every_value_has_a_comment_and_a_bound() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    values = yaml.safe_load("\n".join(lines))
    schema = yaml.safe_load((CHART / "values.schema.json").read_text())["properties"]
    assert values.keys() == schema.keys() - {"global"}
    for name, value in values.items():
        if isinstance(value, dict) and "properties" in schema[name]:
            assert set(value) == set(schema[name]["properties"]), name
    pairs = itertools.pairwise(lines)
    assert [line for before, line in pairs if re.match(r"\w+:", line) and before[:1] != "#"] == []


def test_a_file_and_other_values_reach_the_pods(tmp_path: Path) -> None:
    values = {
        "image": {"repository": "registry.example.com/clipper", "tag": "7", "pullSecrets": [{"name": "registry"}]},
        "config": "applications: {b: {}, a: {}}\n",
        "files": {"model.py": "one"},
        "args": ["--remember-in-store"],
        "env": [{"name": "DB", "value": "x"}],
        "storeSecret": "learned",
        "modelSecrets": "passwords",
        "autoscaling": {"enabled": False},
        "replicas": 3,
        "gpus": 2,
        "nodeSelector": {"disk": "fast"},
        "tolerations": [{"key": "only", "operator": "Exists"}],
        "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None},
        "service": {"type": "LoadBalancer", "sessionAffinity": "ClientIP"},
        "monitoringNamespace": "watch",
        "ingress": {"host": "a.example.com", "className": "traefik", "annotations": {"of": "own"}},
        "gateway": {"name": "edge"},
    }
    (tmp_path / "values.yaml").write_text(yaml.safe_dump(values))
    found = objects(rendered_chart("--values", str(tmp_path / "values.yaml"), "--namespace", "serving"))
    validate(found, tmp_path)
    spec = pod(found)["spec"]
    serves, applies = spec["containers"]
    assert serves["image"] == applies["image"] == "registry.example.com/clipper:7"
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert found["ConfigMap", "clipper"]["data"] == {"clipper.yaml": values["config"], "model.py": "one"}
    assert serves["readinessProbe"]["httpGet"]["path"] == "/health/ready?application=a&application=b"
    assert serves["args"][-1] == "--remember-in-store"
    assert serves["env"][0]["valueFrom"]["secretKeyRef"]["name"] == "learned"
    assert serves["env"][1:] == applies["env"] == values["env"]
    assert serves["volumeMounts"][-1]["mountPath"] == "/run/secrets/models"
    assert {"name": "secrets", "secret": {"secretName": "passwords"}} in spec["volumes"]
    assert found["Deployment", "clipper"]["spec"]["replicas"] == 3
    assert ("HorizontalPodAutoscaler", "clipper") not in found
    assert serves["resources"]["limits"] == {"memory": "2Gi", "nvidia.com/gpu": "2"}
    assert spec["nodeSelector"] == values["nodeSelector"]
    assert [each["key"] for each in spec["tolerations"]] == ["nvidia.com/gpu", "only"]
    assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    service = found["Service", "clipper"]["spec"]
    assert (service["type"], service["sessionAffinity"]) == ("LoadBalancer", "ClientIP")
    assert "kubernetes.io/metadata.name: watch" in yaml.safe_dump(found["NetworkPolicy", "clipper"])
    ingress = found["Ingress", "clipper"]
    assert (ingress["metadata"]["annotations"], ingress["spec"]["ingressClassName"]) == ({"of": "own"}, "traefik")
    (parent,) = found["HTTPRoute", "clipper"]["spec"]["parentRefs"]
    assert parent == {"name": "edge", "namespace": "serving"}


def test_a_change_of_the_file_replaces_the_pods_and_nothing_else_does(tmp_path: Path) -> None:
    example = (MANIFESTS / "clipper.yaml").read_text()
    (tmp_path / "clipper.yaml").write_text(example.replace("slo_ms: 100", "slo_ms: 50"))

    def template(*options: str) -> Any:
        return pod(objects(rendered_chart(*options)))

    own = ("--set-file", f"config={MANIFESTS}/clipper.yaml", "--set-file", rf"files.example\.py={MANIFESTS}/example.py")
    assert template(*own) == template()
    changed = template(*own, "--set-file", f"config={tmp_path}/clipper.yaml")
    before = template()
    digests = [each["metadata"]["annotations"].pop("checksum/files") for each in (changed, before)]
    assert digests[0] != digests[1] and changed == before
    assert template(*settings("autoscaling.maxReplicas=20")) == template()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (settings("replica=3"), "Additional property replica is not allowed"),
        (settings("redis.enable=true"), "redis: Additional property enable is not allowed"),
        (settings("gpus=-1"), "gpus: Must be greater than or equal to 0"),
        (settings("service.type=Balancer"), 'service.type must be one of the following: "ClusterIP", "NodePort"'),
        (
            settings("autoscaling.cpuPercent=many"),
            "autoscaling.cpuPercent: Invalid type. Expected: integer",
        ),
        (settings("config=clipper.yaml"), "config: expected the text of clipper.yaml: .* Give the file by --set-file"),
        (
            settings(r"files.model\.py=x"),
            "files: they lie beside clipper.yaml, which is missing: add --set-file",
        ),
        (settings("readyApplications={nope}"), "readyApplications: clipper.yaml has no application nope"),
        (settings("storeSecret=a", "redis.enabled=true"), "storeSecret and redis.enabled: choose one"),
    ],
    ids=lambda each: each[-1] if isinstance(each, list) else "",
)
def test_wrong_values_are_refused(options: list[str], told: str) -> None:
    done = run_tool("helm", "template", "clipper", str(CHART), *options)
    assert done.returncode != 0 and re.search(told, done.stderr), done.stderr
