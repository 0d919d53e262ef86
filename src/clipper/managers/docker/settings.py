"""How Docker is used, and whether it can be."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import clipper
from clipper.managers.docker.options import Surroundings
from clipper.managers.launcher import Launcher
from clipper.managers.local.launcher import Folders
from clipper.settings.server import Transport
from clipper.settings.version import ManagerName


@dataclass(frozen=True, slots=True)
class DockerSettings:
    """
    Attributes:
        base_image: what the images of models are built on.
        network: Docker's name of the network that containers and builds are in.
        transport: how containers are dialled.
        home: what our containers and images are known by.
    """

    base_image: str
    network: str
    transport: Transport
    home: str


def docker_launcher(
    settings: DockerSettings, folders: Folders, environ: Mapping[str, str]
) -> dict[ManagerName, Launcher]:
    """The launcher by its name, or nothing if its extra is not installed. Whether dockerd runs is another matter.

    ``environ`` says where that is: ``DOCKER_HOST`` and what belongs to it.
    """
    try:
        from clipper.managers.docker.engine import Engine
        from clipper.managers.docker.images import Sources
        from clipper.managers.docker.launcher import DockerLauncher
    except ImportError:
        return {}
    sources = Sources(settings.base_image, folders.artifacts, Path(clipper.__file__).parent)
    around = Surroundings(settings.home, settings.network, settings.transport)
    return {"docker": DockerLauncher(Engine(environ), sources, around, folders.sockets)}
