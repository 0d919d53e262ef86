"""deploy/systemd/clipper.service, run by Debian's systemd as process 1 of namespaces of its own.

The namespaces have a network without other machines, an empty hierarchy of control groups, and folders of their own
wherever the unit writes. Clipper is installed in /opt/clipper from its wheel, as the unit has it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import wheels
from tests.waiting import TIMEOUT_S, until
from tests.wheels import ROOT

pytestmark = [
    pytest.mark.scale,
    pytest.mark.timeout(900),
    pytest.mark.machine,
    pytest.mark.skipif(shutil.which("unshare") is None, reason="namespaces are made by unshare of util-linux"),
]

UNIT = ROOT / "deploy" / "systemd" / "clipper.service"
_AS_ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]
# Where the tests' own Python is in there: it may be in a home, which the unit protects.
PYTHON = "/opt/python"
# Which no user of this machine has.
USER_ID = "59876"
# $1: what becomes /opt/clipper; $2: the Python's folder; $3: a folder for what the unit writes; $4: the unit.
BOOT = f"""
set -eu
mount --make-rprivate /
for each in lib cache log; do mkdir -p "$3/$each"; mount --bind "$3/$each" "/var/$each"; done
install -D -m 644 "$4" "$3/units/clipper.service"
mount --bind "$3/units" /etc/systemd/system
mount -t tmpfs -o mode=755 tmpfs /opt
mkdir /opt/clipper {PYTHON}
mount --bind "$1" /opt/clipper
mount --bind "$2" {PYTHON}
mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
mount -t proc proc /proc
ip link set lo up
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -m 755 /run/models
for each in passwd group; do cp /etc/$each /run; done
echo "clipper:x:{USER_ID}:{USER_ID}::/var/lib/clipper:/usr/sbin/nologin" >>/run/passwd
echo "clipper:x:{USER_ID}:" >>/run/group
for each in passwd group; do mount --bind /run/$each /etc/$each; done
ldconfig -C /run/libraries {PYTHON}/lib
[ ! -e /etc/ld.so.cache ] || mount --bind /run/libraries /etc/ld.so.cache
mount -t tmpfs tmpfs /tmp
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=test /lib/systemd/systemd --unit=clipper.service
"""
NAMESPACES = ("--mount", "--pid", "--fork", "--cgroup", "--net", "--uts", "--ipc", "--kill-child")
MODEL = "def total(inputs):\n    return [float(row.sum()) for row in inputs]\n"
# Asks without a pause, each time on a new connection, until /run/over is there.
ASK = """while [ ! -e /run/over ]; do
curl -sS localhost:1337/sum/predict -d '{"input": [1, 2]}' -w '\\n' || echo lost
done >/run/answers 2>&1 </dev/null &"""
# Where the unit's own command line is replaced.
OTHER_OPTIONS = """[Service]
ExecStart=
ExecStart=/opt/clipper/bin/clipper start --foreground --drain-delay 15 --workers 2
"""


class Machine:
    """A machine of namespaces, which systemd has booted."""

    def __init__(self, folder: Path, environment: Path) -> None:
        prefix = Path(sys.executable).resolve().parent.parent
        boot = folder / "boot.sh"
        boot.write_text(BOOT)
        places = [str(environment), str(prefix), str(folder / "writes"), str(UNIT)]
        self._log = (folder / "log").open("wb")
        self._process = subprocess.Popen(
            [*_AS_ROOT, "unshare", *NAMESPACES, "sh", str(boot), *places], stdout=self._log, stderr=self._log
        )

    def init(self) -> str:
        """The process id of systemd, as this machine has it: below unshare, which is below sudo if there is one.

        Raises:
            IndexError, OSError: it does not run yet.
        """
        pid = str(self._process.pid)
        while Path(f"/proc/{pid}/comm").read_text() != "systemd\n":
            pid = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0]
        return pid

    def run(self, command: str) -> str:
        """The output of a shell's command in there."""
        done = subprocess.run(
            [*_AS_ROOT, "nsenter", "-t", self.init(), "-a", "sh", "-c", command],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def as_user(self, arguments: str) -> str:
        """A command of Clipper as the unit's user."""
        become = f"setpriv --reuid={USER_ID} --regid={USER_ID} --clear-groups"
        return f"CLIPPER_HOME=/var/lib/clipper {become} /opt/clipper/bin/clipper {arguments}"

    def clipper(self, arguments: str) -> str:
        return self.run(f"cd /run/models && {self.as_user(arguments)}")

    def status(self) -> Any:
        return json.loads(self.clipper("status --json"))

    def serve_sums(self) -> None:
        until(self.is_serving)
        self.run("cat >/run/models/sums.py <<'END'\n" + MODEL + "END")
        self.clipper("deploy sum sums:total --input-type 'float64[2]' --no-cache")
        self.clipper("app create sum --model sum --slo-ms 20000")

    def is_serving(self) -> bool:
        try:
            self.clipper("status")
        except (AssertionError, IndexError, OSError):
            return False
        return True

    def shows(self, name: str) -> str:
        return self.run(f"systemctl show --property {name} --value clipper")

    def predict(self, row: str) -> str:
        body = f"'{{\"input\": {row}}}'"
        return self.run(f"curl -sS localhost:1337/sum/predict -d {body}")

    def end(self) -> None:
        try:
            subprocess.run([*_AS_ROOT, "kill", "-9", self.init()], check=True)
        except (IndexError, OSError):  # it never ran
            self._process.terminate()
        self._process.wait(TIMEOUT_S)
        self._log.close()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    environment = tmp_path / "clipper"
    wheels.install(wheels.build("wheel", tmp_path / "dist"), "sklearn", environment)
    # The interpreter and what was installed for it, by the paths that they have in there.
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for name in ("python", "python3", version):
        (environment / "bin" / name).unlink(missing_ok=True)
        (environment / "bin" / name).symlink_to(f"{PYTHON}/bin/{version}")
    config = environment / "pyvenv.cfg"
    config.write_text(re.sub(r"(?m)^home = .*$", f"home = {PYTHON}/bin", config.read_text()))
    program = environment / "bin" / "clipper"
    program.write_text("#!/opt/clipper/bin/python\nfrom clipper.cli.main import main\nmain()\n")
    machine = Machine(tmp_path, environment)
    yield machine
    machine.end()
    subprocess.run([*_AS_ROOT, "rm", "-rf", str(tmp_path / "writes")], check=True)


def test_the_unit_serves_heals_reloads_and_stays_stopped(machine: Machine) -> None:
    machine.serve_sums()
    assert '"output":3.0' in machine.predict("[1, 2]")
    # It is confined: the user's, without privileges, and it writes where it should and nowhere else.
    pid = machine.shows("MainPID")
    facts = machine.run(f"cat /proc/{pid}/status")
    assert f"Uid:\t{USER_ID}\t" in facts and "NoNewPrivs:\t1" in facts and "CapEff:\t0000000000000000" in facts
    assert machine.run("stat -c '%U %a' /var/lib/clipper") == "clipper 700"

    # One that is killed is started again; meanwhile queries are answered.
    machine.run(f"kill -9 {pid}")
    assert '"output":4.0' in machine.predict("[1, 3]")
    until(lambda: machine.shows("NRestarts") == "1" and machine.is_serving())
    assert '"output":5.0' in machine.predict("[1, 4]")

    # To reload, without a certificate too, ends nothing.
    machine.run("systemctl reload clipper")
    assert '"output":6.0' in machine.predict("[1, 5]")
    assert machine.shows("NRestarts") == "1" and machine.is_serving()

    # Stopped by its own command it stays stopped, and nothing of it is left.
    machine.clipper("stop")
    until(lambda: machine.shows("ActiveState") == "inactive")
    assert machine.shows("Result") == "success"
    assert machine.run("pgrep -u clipper; :") == ""

    # Started again it has what it had, and systemd stops it as well.
    machine.run("systemctl start clipper")
    until(machine.is_serving)
    machine.run("until curl -fsS localhost:1337/health/ready; do sleep 0.1; done")
    assert '"output":7.0' in machine.predict("[1, 6]")
    machine.run("systemctl stop clipper")
    assert (machine.shows("Result"), machine.shows("ActiveState")) == ("success", "inactive")


def test_a_newer_clipper_and_other_options_cost_no_query(machine: Machine) -> None:
    machine.serve_sums()
    machine.run(ASK)
    pid, before = machine.shows("MainPID"), machine.status()
    # A newer Clipper is installed. The server starts again in its process, of which systemd sees nothing.
    machine.run("sed -i '$a # newer' /opt/clipper/lib/python3*/site-packages/clipper/worker/worker.py")
    machine.clipper("restart")

    def is_replaced() -> bool:
        now = machine.status()
        old = {worker["pid"] for worker in before["workers"]}
        return not now["problems"] and not old & {worker["pid"] for worker in now["workers"]}

    until(is_replaced)
    assert (machine.shows("MainPID"), machine.shows("NRestarts")) == (pid, "0")
    assert machine.status()["options"] == before["options"]

    # Options are the unit's. Whoever gives them to the command is told so.
    refused = machine.run("! " + machine.as_user("restart --workers 2") + " 2>&1")
    assert "clipper start --foreground, whose command line has its options: change them there" in refused
    machine.run("mkdir /etc/systemd/system/clipper.service.d")
    machine.run(f"cat >/etc/systemd/system/clipper.service.d/override.conf <<'END'\n{OTHER_OPTIONS}END")
    machine.run("systemctl daemon-reload")
    machine.run("systemctl kill --kill-whom=main --signal=SIGKILL clipper")

    def workers() -> int:
        return len(machine.status()["workers"]) if machine.is_serving() else 0

    until(lambda: machine.shows("NRestarts") == "1" and workers() == 2 and not machine.status()["problems"])
    machine.run("touch /run/over")
    answers = machine.run("cat /run/answers").splitlines()
    assert len(answers) > 10 and all('"output":3.0' in answer for answer in answers), answers

    # A restart by systemd has the unit's options, too, and all that was deployed.
    machine.run("systemctl restart clipper")
    until(lambda: machine.is_serving() and workers() == 2)
    machine.run("until curl -fsS localhost:1337/health/ready; do sleep 0.1; done")
    assert '"output":7.0' in machine.predict("[1, 6]")
