"""What the server provides to every manager."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from clipper.processes.folder import ProcessFolder
from clipper.run_as import RunAs
from clipper.settings.server import StartMethod, Transport
from clipper.settings.version import ManagerName


@dataclass(frozen=True, slots=True)
class Facilities:
    """What a manager may use. Each takes what it needs. An option for one manager only begins with its name.

    Attributes:
        home: the home's root. What belongs to this home is labelled with it.
        artifacts: the folder of unpacked artifacts, by their digests.
        scratch: where containers get folders to work in.
        sockets: where they make their sockets. It may be outside the home, because a socket's path must be short.
        environments: where Python environments are kept if models run as another user.
        processes: starts processes that a later supervisor can find again.
        environ: the server's own environment variables.
        logs: where what they write goes.
        start_method: how containers of this machine are started.
        run_as: the user that models run as; None is the server's. That user must not be able to write to these folders.
        docker_base_image: what images of models are built on.
        docker_network: Docker's name of the network that containers and builds are in.
        docker_transport: how containers in Docker are dialled.
        ray_address: of the cluster, as ``ray.init`` takes it.
        ray_ports: the first and the last port that containers on its nodes listen on.
        ray_python: the interpreter that has Clipper and Ray; None is the server's own.
        cluster: the name of the registry that several homes share, of which one leads at a time; empty if no home does.
        may_act: whether this home leads now. What homes share, such as containers on Ray, is left alone while not.
        has_workers_elsewhere: query workers run on the nodes of a cluster, and not on this machine.
        left_elsewhere: managers whose containers the leader of another home may have left to this one.
    """

    home: Path
    artifacts: Path
    scratch: Path
    sockets: Path
    environments: Path
    processes: ProcessFolder
    logs: Path
    environ: Mapping[str, str]
    start_method: StartMethod = "spawn"
    run_as: RunAs | None = None
    docker_base_image: str = ""
    docker_network: str = ""
    docker_transport: Transport = "unix"
    ray_address: str = ""
    ray_ports: tuple[int, int] = (0, 0)
    ray_python: str | None = None
    cluster: str = ""
    may_act: Callable[[], bool] = lambda: True
    has_workers_elsewhere: bool = False
    left_elsewhere: Collection[ManagerName] = ()
