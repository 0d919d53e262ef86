"""The table of managers: the only place that knows them all. Ray is not imported: its driver is another process."""

import hashlib
import logging
import socket
import sys
from pathlib import Path
from typing import Literal

import clipper
from clipper.base.build import build_id
from clipper.base.extras import has_ray
from clipper.base.processes.gpus import machine_gpus
from clipper.settings.texts import read_ports
from clipper.settings.version import ManagerName
from clipper.supervisor.managers.docker.options import Setting
from clipper.supervisor.managers.launcher import ELSEWHERE, RUNTIME_PARTS, Facilities, Launcher
from clipper.supervisor.managers.local.launcher import LocalLauncher
from clipper.supervisor.managers.ray.connection import Cluster
from clipper.supervisor.managers.ray.launcher import RayLauncher
from clipper.supervisor.managers.ray.messages import OWNER_PREFIX, WORKERS_SUFFIX
from clipper.supervisor.managers.ray.worker_host import RayWorkerHost
from clipper.supervisor.managers.worker_host import ClusterHost, Sign


def open_launchers(
    facilities: Facilities, where: Literal["everywhere", "here", "elsewhere"] = "everywhere"
) -> dict[ManagerName, Launcher]:
    """Return a launcher for each manager whose extra is installed.

    A program that a manager needs, such as dockerd, need not run yet. ``where``: only managers whose containers run on
    the server's machine, or on others.
    """
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


def _open_docker(facilities: Facilities) -> Launcher | None:
    """Open the launcher of Docker; None if the extra is not installed. The server's ``DOCKER_HOST`` names dockerd."""
    try:
        from clipper.supervisor.managers.docker.engine import Engine
        from clipper.supervisor.managers.docker.images import Sources
        from clipper.supervisor.managers.docker.launcher import DockerLauncher
    except ImportError:
        return None
    settings = facilities.settings
    sources = Sources(settings.docker_base_image, facilities.artifacts, Path(clipper.__file__).parent)
    setting = Setting(str(facilities.home), settings.docker_network, settings.docker_transport)
    gpus = machine_gpus(facilities.environ)
    return DockerLauncher(Engine(facilities.environ), sources, setting, facilities.sockets, gpus)


log = logging.getLogger(__name__)

# The prefix of Clipper's own variables. Ray's variables, such as those of its TLS, are passed on.
_OURS = "CLIPPER_"


def open_ray(facilities: Facilities) -> Launcher | None:
    """Open the launcher of Ray, which need not run yet; None without the extra, here or in another Python."""
    in_use = facilities.home / "ray-in-use"
    if not _has_ray(facilities, in_use):
        return None
    if "ray" in facilities.orphans_elsewhere:
        in_use.touch()
    return RayLauncher(
        _cluster(facilities),
        facilities.artifacts,
        in_use,
        read_ports(facilities.settings.ray_ports),
        build_id(RUNTIME_PARTS),
        facilities.run_as,
    )


def open_cluster_host(facilities: Facilities, sign: Sign | None) -> ClusterHost | None:
    """Open the host of query workers on nodes; None like ``open_ray``. ``sign``: see ``RayWorkerHost``."""
    in_use = facilities.home / "ray-workers-in-use"
    if not _has_ray(facilities, in_use):
        return None
    if facilities.cluster and facilities.settings.workers_per_node:  # another home may have left workers there
        in_use.touch()
    # In a namespace of their own: a launcher ends all unknown containers in its namespace.
    return RayWorkerHost(
        _cluster(facilities, WORKERS_SUFFIX),
        facilities.artifacts,
        in_use,
        read_ports(facilities.settings.ray_ports),
        build_id(),
        sign,
    )


def _has_ray(facilities: Facilities, in_use: Path) -> bool:
    if facilities.settings.ray_python is not None or has_ray():
        return True
    if in_use.exists():
        log.warning(
            "an earlier server of this home may have left containers or query workers on Ray, which this one cannot "
            "reach: start it with --ray-python or with the extra ray, or see clipper cluster list (%(file)s)",
            {"file": in_use},
        )
    return False


def _cluster(facilities: Facilities, suffix: str = "") -> Cluster:
    # Homes, also of several machines, may share a cluster of Ray. Homes that also share a registry take over each
    # other's containers and workers.
    owner = facilities.cluster or f"{socket.gethostname()}:{facilities.home}"
    environ = {name: value for name, value in facilities.environ.items() if not name.startswith(_OURS)}
    return Cluster(
        python=str(facilities.settings.ray_python or sys.executable),
        address=facilities.settings.ray_address,
        namespace=f"{OWNER_PREFIX}{hashlib.sha256(owner.encode()).hexdigest()[:16]}{suffix}",
        environ={**environ, "PYTHONPATH": str(facilities.processes.python_path), "PYTHONUNBUFFERED": "1"},
        log_path=facilities.logs / f"ray{suffix}-driver.log",
        may_act=facilities.may_act,
        start_again=facilities.start_again,
    )
