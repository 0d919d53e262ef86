"""The table of managers: the one place that knows them all."""

from typing import Literal

from clipper.settings.version import ManagerName
from clipper.supervisor.managers.docker.open import open_docker
from clipper.supervisor.managers.facilities import Facilities
from clipper.supervisor.managers.launcher import Launcher
from clipper.supervisor.managers.local.launcher import LocalLauncher
from clipper.supervisor.managers.local.worker_host import LocalWorkerHost
from clipper.supervisor.managers.ray.open import open_ray, open_ray_host
from clipper.supervisor.managers.worker_host import ClusterHost, Sign, WorkerHost

# Managers whose containers run elsewhere than on the server's machine: the servers of a cluster share them.
ELSEWHERE: frozenset[ManagerName] = frozenset({"ray"})


def open_launchers(
    facilities: Facilities, where: Literal["everywhere", "here", "elsewhere"] = "everywhere"
) -> dict[ManagerName, Launcher]:
    """A launcher for each manager, by the name that versions ask for it with.

    ``where``: of those alone whose containers run on the server's machine, or on others.

    A manager whose extra is not installed is left out. A program that a manager needs, such as dockerd, need not run
    yet.
    """
    opened: dict[ManagerName, Launcher | None] = {
        "local": LocalLauncher.open(facilities),
        "docker": open_docker(facilities),
        "ray": open_ray(facilities),
    }
    return {
        name: launcher
        for name, launcher in opened.items()
        if launcher is not None and (where == "everywhere" or (name in ELSEWHERE) == (where == "elsewhere"))
    }


def open_cluster_host(facilities: Facilities, sign: Sign | None) -> ClusterHost | None:
    """Where query workers run on the nodes of a cluster; None if the extra for that is not installed.

    ``sign``: signs for workers; None if none are to be started there, but some may have been left.
    """
    return open_ray_host(facilities, sign)


def open_worker_host(facilities: Facilities) -> WorkerHost:
    """Where query workers run on this machine."""
    return LocalWorkerHost(facilities.processes, facilities.sockets, facilities.logs)
