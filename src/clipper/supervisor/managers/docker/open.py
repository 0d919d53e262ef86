"""Whether Docker can be used here, and the launcher if so."""

from pathlib import Path

import clipper
from clipper.supervisor.managers.docker.options import Setting
from clipper.supervisor.managers.facilities import Facilities
from clipper.supervisor.managers.launcher import Launcher


def open_docker(facilities: Facilities) -> Launcher | None:
    """The launcher of containers in Docker; None if its extra is not installed.

    The server's environment says where dockerd is: ``DOCKER_HOST`` and what belongs to it.
    """
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
