"""Renders the manifests and the chart as their users do, without a cluster."""

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from scripts.kubernetes_tools import program
from scripts.real_models import environment
from tests.waiting import TIMEOUT_S
from tests.wheels import ROOT

MANIFESTS = ROOT / "deploy" / "kubernetes"
CHART = ROOT / "deploy" / "helm" / "clipper"
# Objects of others, which Kubernetes' own schemas leave out.
OF_OTHERS = {"HTTPRoute", "ScaledObject"}

Objects = dict[tuple[str, str], Any]


def run(name: str, *words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A run of helm or kubectl, which knows no cluster."""
    command = [str(program(name)), *words]
    environ = {**os.environ, "KUBECONFIG": os.devnull}
    return subprocess.run(command, env=environ, cwd=cwd, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def succeed(name: str, *words: str, cwd: Path | None = None) -> str:
    done = run(name, *words, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def objects(text: str) -> Objects:
    """The objects in a rendered text, by kind and name."""
    found = [each for each in yaml.safe_load_all(text) if each is not None]
    by_name = {(each["kind"], each["metadata"]["name"]): each for each in found}
    assert len(by_name) == len(found)
    return by_name


def rendered_base(folder: Path, *components: str) -> str:
    """The base with components, added to a copy in ``folder`` as a user adds them."""
    copy = folder / "kubernetes"
    shutil.copytree(MANIFESTS, copy)
    with (copy / "kustomization.yaml").open("a") as file:
        yaml.safe_dump({"components": list(components)}, file)
    return succeed("kubectl", "kustomize", str(copy))


def rendered_chart(*options: str, release: str = "clipper") -> str:
    return succeed("helm", "template", release, str(CHART), *options)


def validate(found: Objects, folder: Path) -> None:
    """Hold objects against Kubernetes' schemas.

    Raises:
        AssertionError: one does not pass; the text says why.
    """
    paths = []
    for (kind, name), each in found.items():
        if kind not in OF_OTHERS:
            paths.append(folder / f"{kind}-{name}.yaml")
            paths[-1].write_text(yaml.safe_dump(each))
    command = [str(environment("deploy")), "-m", "kubernetes_validate", "--strict", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    told = done.stdout + done.stderr
    assert (done.returncode, told.count(" passed for resource ")) == (0, len(paths)), told
