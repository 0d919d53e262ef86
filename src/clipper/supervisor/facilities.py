"""What a server provides to managers, by its settings."""

import os

from clipper.managers.facilities import Facilities
from clipper.processes.folder import ProcessFolder
from clipper.settings.texts import read_ports
from clipper.supervisor.config import Config
from clipper.supervisor.folders import HomeFolders


def facilities_of(config: Config, home: HomeFolders, processes: ProcessFolder) -> Facilities:
    """Those of a server that shares nothing with others."""
    return Facilities(
        home=home.root,
        artifacts=home.artifacts,
        scratch=home.scratch,
        sockets=home.sockets,
        environments=home.environments,
        processes=processes,
        logs=home.logs,
        environ=os.environ,
        start_method=config.start_method,
        run_as=config.models_user,
        docker_base_image=config.docker_base_image,
        docker_network=config.docker_network,
        docker_transport=config.docker_transport,
        ray_address=config.ray_address,
        ray_ports=read_ports(config.ray_ports),
        has_workers_elsewhere=config.workers_per_node > 0,
        ray_python=None if config.ray_python is None else str(config.ray_python),
    )
