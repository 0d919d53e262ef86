"""The commands of docs/kubernetes.md, without a cluster: as much of each as kubectl and helm do before they ask one."""

import re
import shlex
import shutil
from pathlib import Path

import pytest
import yaml

from tests.deploy.kubernetes import MANIFESTS, objects, succeed, validate
from tests.docs.pages import blocks, commands
from tests.wheels import ROOT

pytestmark = pytest.mark.long

PAGE = ROOT / "docs" / "kubernetes.md"
# By the beginning of a command: the command that renders the same objects without a cluster.
RENDERS = {
    "kubectl apply -k": "kubectl kustomize",
    "helm install": "helm template",
    "helm upgrade": "helm template",
}
LEFT_OUT = {
    "make image": "tests/deploy/test_image.py builds the image",
    "docker": "needs a registry",
    "kubectl rollout": "needs a cluster",
    "kubectl port-forward": "needs a cluster",
    "curl": "needs a cluster; tests/deploy/test_image.py asks the same of the pod's containers",
}


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder as the reader has it: with the chart, the manifests, and a file of their own."""
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    for name, of in (("clipper.yaml", "clipper.yaml"), ("model.py", "example.py")):
        shutil.copy(MANIFESTS / of, tmp_path / name)
    components, values = [block.text for block in blocks(PAGE) if block.language == "yaml"]
    (tmp_path / "values.yaml").write_text(values)
    with (tmp_path / "deploy/kubernetes/kustomization.yaml").open("a") as file:
        file.write(components)
    return tmp_path


def test_its_commands_render_what_kubernetes_takes(clone: Path) -> None:
    told = [command for block in blocks(PAGE) if block.language == "sh" for command in commands(block.text)]
    rendered = []
    for command in told:
        if any(command.startswith(begin) for begin in LEFT_OUT):
            continue
        (begin,) = [begin for begin in RENDERS if command.startswith(begin)]
        words = shlex.split(command.replace(begin, RENDERS[begin], 1))
        rendered.append(objects(succeed(words[0], *words[1:], cwd=clone)))
        validate(rendered[-1], clone)
    kustomized, installed, upgraded = rendered
    assert {("ScaledObject", "clipper"), ("Ingress", "clipper"), ("StatefulSet", "clipper-redis")} <= kustomized.keys()
    assert installed["ConfigMap", "clipper"]["data"].keys() == {"clipper.yaml", "example.py"}
    assert upgraded["ConfigMap", "clipper"]["data"].keys() == {"clipper.yaml", "model.py"}
    assert {kind for kind, _ in upgraded} > {"Ingress", "HTTPRoute", "HorizontalPodAutoscaler", "StatefulSet"}


def test_its_components_are_those_that_are_there() -> None:
    components, _ = [yaml.safe_load(block.text) for block in blocks(PAGE) if block.language == "yaml"]
    assert set(components["components"]) == {path.parent.name for path in MANIFESTS.glob("*/kustomization.yaml")}


def test_its_secret_is_the_one_that_pods_read() -> None:
    (command,) = re.findall(r"`kubectl (create secret [^`]*)`", PAGE.read_text())
    made = objects(succeed("kubectl", *shlex.split(command), "--dry-run=client", "--output=yaml"))
    env = yaml.safe_load((MANIFESTS / "deployment.yaml").read_text())["spec"]["template"]["spec"]["containers"][0][
        "env"
    ]
    reads = env[0]["valueFrom"]["secretKeyRef"]
    assert made["Secret", reads["name"]]["data"].keys() == {reads["key"]}
