"""Machines within this one: each has an address, a network, processes and temporary files of its own, and its power can
be cut."""

import os
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tests.own_network import run
from tests.waiting import until

# Of what is no such machine: the test, and what it starts.
OUTSIDE = "10.78.0.254"
BRIDGE = "machines"
# In namespaces of its own: its temporary files are gone after each start, but not its folder, which lies among those of
# this machine. Its first process reaps what others leave behind, since it ignores the signal of their ends.
BOOT = """
set -e
mount --bind "$1" /mnt
for folder in /tmp /dev/shm; do mount -t tmpfs tmpfs "$folder"; done
mkdir -p "$1"
mount --bind /mnt "$1"
hostname "${1##*/}"
trap '' CHLD
touch "$1/booted"
exec sleep infinity
"""
WITHIN_S = 120


def connect_machines() -> None:
    """Make a network for machines in this thread's own network; it goes with that."""
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "address", "add", f"{OUTSIDE}/24", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")


class Machine:
    """The machine of a number, on a folder that outlives its power. It ends with the thread that switched it on."""

    def __init__(self, number: int, folder: Path, environ: Mapping[str, str]) -> None:
        self.folder = folder
        self.address = f"10.78.0.{number}"
        self._link, self._hardware = f"machine{number}", f"02:00:00:00:00:{number:02x}"
        self._environ = {**os.environ, **environ}
        self._power: subprocess.Popen[bytes] | None = None
        self._first = 0
        folder.mkdir()

    def switch_on(self) -> None:
        """Start it, and connect it."""
        booted = self.folder / "booted"
        booted.unlink(missing_ok=True)
        ending_with_us = ("setpriv", "--pdeathsig", "KILL", "unshare", "--kill-child", "--fork", "--mount-proc")
        namespaces = ("--net", "--pid", "--mount", "--ipc", "--uts")
        self._power = power = subprocess.Popen([*ending_with_us, *namespaces, "sh", "-c", BOOT, "boot", self.folder])
        until(booted.exists, failed=lambda: power.poll() is not None)
        self._first = int(Path(f"/proc/{power.pid}/task/{power.pid}/children").read_text())
        run("ip", "link", "add", self._link, "type", "veth", "peer", "name", "eth0", "netns", str(self._first))
        self.do("ip", "link", "set", "eth0", "address", self._hardware)
        self.do("ip", "address", "add", f"{self.address}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            self.do("ip", "link", "set", link, "up")
        run("ip", "link", "set", self._link, "master", BRIDGE, "up")

    def do(self, *command: str) -> str:
        """Run a command on it, and return what it writes."""
        entering = ("nsenter", "--target", str(self._first), "--net", "--pid", "--mount", "--ipc", "--uts", "--")
        # A file, since what a command leaves running in its background keeps a pipe open.
        with (self.folder / "said").open("w+b") as said:
            done = subprocess.run(
                [*entering, *command],
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                timeout=WITHIN_S,
                check=False,
            )
            said.seek(0)
            text = said.read().decode()
        assert done.returncode == 0, f"{command}: {text}"
        return text

    def cut_power(self) -> None:
        """End it at once. Its network goes first, so nobody is told: nothing is closed, and nothing reset."""
        if self._power is None:
            return
        with suppress(subprocess.CalledProcessError):  # it was not connected yet
            run("ip", "link", "delete", self._link)
        self._power.kill()
        self._power.wait()
        self._power = None
        # The kernel ends all else of it with its first process.
        until(lambda: not Path(f"/proc/{self._first}").exists())
