"""The files of deploy/ against their schemas, and against each other."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

from clipper.client import STOP_TIMEOUT_S
from scripts.real_models import environment
from tests.wheels import ROOT

DEPLOY = ROOT / "deploy"
# The time that a stop takes beyond the drain delay: 11 s for queries in flight, and the rest for models to end.
DRAIN_S = 30


def check(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def unit() -> str:
    return (DEPLOY / "systemd/clipper.service").read_text()


def seconds(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found is not None, pattern
    return int(found[1])


def test_the_compose_file_is_what_compose_takes() -> None:
    schema = ["--builtin-schema", "vendor.compose-spec", str(DEPLOY / "docker/compose.yaml")]
    assert "ok" in check(str(environment("deploy")), "-m", "check_jsonschema", *schema)


def test_nobody_waits_shorter_than_a_stop_takes() -> None:
    pod = yaml.safe_load((DEPLOY / "kubernetes/deployment.yaml").read_text())["spec"]["template"]["spec"]
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
