"""The table of managers: the one place that knows them all."""

from pathlib import Path
from typing import Literal

import clipper
from clipper.settings.version import ManagerName
from clipper.supervisor.managers.docker.options import Setting
from clipper.supervisor.managers.launcher import Facilities, Launcher
from clipper.supervisor.managers.local.launcher import LocalLauncher
from clipper.supervisor.managers.ray.open import open_ray, open_ray_host
from clipper.supervisor.managers.worker_host import ClusterHost, LocalWorkerHost, Sign, WorkerHost

# Managers whose containers run elsewhere than on the server's machine: the servers of a cluster share them.
ELSEWHERE: frozenset[ManagerName] = frozenset({"ray"})


def open_launchers(
    facilities: Facilities, where: Literal["everywhere", "here", "elsewhere"] = "everywhere"
) -> dict[ManagerName, Launcher]:
    """A launcher for each manager whose extra is installed. A program that a manager needs, such as dockerd, need not
    run yet. ``where``: only managers whose containers run on the server's machine, or on others."""
    opened: dict[ManagerName, Launcher | None] = {
        "local": LocalLauncher.open(facilities),
        "docker": _open_docker(facilities),
        "ray": open_ray(facilities),
    }
    return {
        name: launcher
        for name, launcher in opened.items()
        if launcher is not None and (where == "everywhere" or (name in ELSEWHERE) == (where == "elsewhere"))
    }


def open_cluster_host(facilities: Facilities, sign: Sign | None) -> ClusterHost | None:
    """None without the extra. ``sign`` is None if no workers are to be started on nodes, but some may be left."""
    return open_ray_host(facilities, sign)


def open_worker_host(facilities: Facilities) -> WorkerHost:
    """Where query workers run on this machine."""
    return LocalWorkerHost(facilities.processes, facilities.sockets, facilities.logs)


def _open_docker(facilities: Facilities) -> Launcher | None:
    """None if the extra is not installed. The server's ``DOCKER_HOST`` says where dockerd is."""
    try:
        from clipper.supervisor.managers.docker.engine import Engine
        from clipper.supervisor.managers.docker.images import Sources
        from clipper.supervisor.managers.docker.launcher import DockerLauncher
    except ImportError:
        return None
    settings = facilities.settings
    sources = Sources(settings.docker_base_image, facilities.artifacts, Path(clipper.__file__).parent)
    setting = Setting(str(facilities.home), settings.docker_network, settings.docker_transport)
    return DockerLauncher(Engine(facilities.environ), sources, setting, facilities.sockets)
