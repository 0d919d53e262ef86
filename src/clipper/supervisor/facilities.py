"""What a server provides to managers, by its settings."""

import os

from clipper.base.processes.folder import ProcessFolder
from clipper.supervisor.config import Config
from clipper.supervisor.folders import HomeFolders
from clipper.supervisor.managers.facilities import Facilities


def facilities_of(config: Config, home: HomeFolders, processes: ProcessFolder) -> Facilities:
    """Return the facilities of a server that shares nothing with others."""
    return Facilities(
        home=home.root,
        artifacts=home.artifacts,
        scratch=home.scratch,
        sockets=home.sockets,
        environments=home.environments,
        processes=processes,
        logs=home.logs,
        environ=os.environ,
        settings=config,
        run_as=config.models_user,
    )
