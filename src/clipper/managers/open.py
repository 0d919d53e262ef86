"""The table of managers: the one place that knows them all."""

from clipper.managers.docker.open import open_docker
from clipper.managers.facilities import Facilities
from clipper.managers.launcher import Launcher
from clipper.managers.local.launcher import LocalLauncher
from clipper.managers.local.worker_host import LocalWorkerHost
from clipper.managers.ray.open import open_ray
from clipper.managers.worker_host import WorkerHost
from clipper.settings.version import ManagerName

# Managers whose containers run elsewhere than on the server's machine: the servers of a cluster share them.
ELSEWHERE: frozenset[ManagerName] = frozenset({"ray"})


def open_launchers(facilities: Facilities) -> dict[ManagerName, Launcher]:
    """A launcher for each manager, by the name that versions ask for it with.

    A manager whose extra is not installed is left out. A program that a manager needs, such as dockerd, need not run
    yet.
    """
    opened: dict[ManagerName, Launcher | None] = {
        "local": LocalLauncher.open(facilities),
        "docker": open_docker(facilities),
        "ray": open_ray(facilities),
    }
    return {name: launcher for name, launcher in opened.items() if launcher is not None}


def open_worker_host(facilities: Facilities) -> WorkerHost:
    """Where query workers run."""
    return LocalWorkerHost(facilities.processes, facilities.sockets, facilities.logs)
