"""What the server provides to every manager."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from clipper.base.processes.folder import ProcessFolder
from clipper.base.run_as import RunAs
from clipper.settings.server import ServerSettings
from clipper.settings.version import ManagerName


@dataclass(frozen=True, slots=True)
class Facilities:
    """What a manager may use. Each takes what it needs. A setting for one manager only begins with its name.

    Attributes:
        home: the home's root. What belongs to this home is labelled with it.
        artifacts: the folder of unpacked artifacts, by their digests.
        scratch: where containers get folders to work in.
        sockets: where they make their sockets. It may be outside the home, because a socket's path must be short.
        environments: where Python environments are kept if models run as another user.
        processes: starts processes that a later supervisor can find again.
        environ: the server's own environment variables.
        logs: where what they write goes.
        settings: what the server was started with.
        run_as: the user that models run as; None is the server's. That user must not be able to write to these folders.
        cluster: the name of the registry that several homes share, of which one leads at a time; empty if no home does.
        may_act: whether this home leads now. What homes share, such as containers on Ray, is left alone while not.
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
    settings: ServerSettings = field(default_factory=ServerSettings)
    run_as: RunAs | None = None
    cluster: str = ""
    may_act: Callable[[], bool] = lambda: True
    left_elsewhere: Collection[ManagerName] = ()
