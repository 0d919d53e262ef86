"""How a server of a cluster comes to lead: it asks for the lease, and stands by until it gets it."""

import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator
from typing import Any

from clipper.api.server.access import Holder
from clipper.base.processes.folder import ProcessFolder
from clipper.settings.home import Place
from clipper.supervisor.artifacts.shared import fetch_missing
from clipper.supervisor.artifacts.store import Artifacts
from clipper.supervisor.config import Config
from clipper.supervisor.facilities import facilities_of
from clipper.supervisor.folders import HomeFolders
from clipper.supervisor.keepers.certificates import LOOK_EVERY_S, Certificates
from clipper.supervisor.keepers.keepers import Keepers
from clipper.supervisor.leadership.standby import Standby, StandbyOperations, reap_children, who_leads
from clipper.supervisor.management_port import ManagementPort
from clipper.supervisor.managers.open import ELSEWHERE, open_launchers
from clipper.supervisor.operations.token_file import TokenFile
from clipper.supervisor.operations.views import options_view
from clipper.supervisor.registry.leadership import Leadership
from clipper.supervisor.registry.shared import SharedRegistry
from clipper.supervisor.stop_requests import StopRequests
from clipper.supervisor.workers import ports, takeover
from clipper.values.types import OPERATOR

log = logging.getLogger(__name__)


class Succession:
    """Takes one server from its start until it leads."""

    def __init__(
        self,
        config: Config,
        home: HomeFolders,
        port: ManagementPort,
        certificates: Certificates | None,
        token_file: TokenFile,
        stopping: StopRequests,
    ) -> None:
        self._config = config
        self._home = home
        self._port = port
        self._certificates = certificates
        self._token_file = token_file
        self._stopping = stopping

    async def lead(self, registry: SharedRegistry) -> Leadership | None:
        """Wait until this server leads, with all models' files; None if it is told to stop before.

        Raises:
            RegistryUnavailable: the registry cannot be used as it is, whoever leads.
        """
        # A supervisor that stepped down in this process has left children, some of which may have ended.
        reap_children()
        artifacts = Artifacts(self._home.artifacts)
        standby = Standby(registry, artifacts, self._end_left, self._stopping)
        if (lease := await standby.ask()) is not None:
            leadership = Leadership(registry, lease, self._port.address, time.time())
        else:
            try:
                async with self._standing_by(standby, registry):
                    if (lease := await standby.wait()) is None:
                        return None
                    # It is renewed from now on, also while the calls under way are answered.
                    leadership = Leadership(registry, lease, self._port.address, time.time())
            finally:
                # A server that goes on to lead is found where it is, and whoever calls it waits until it answers.
                if lease is None:
                    self._home.place.unlink(missing_ok=True)
        log.info("this server leads, with epoch %(epoch)d", {"epoch": lease.epoch})
        await fetch_missing(registry, artifacts)
        return leadership

    @contextlib.asynccontextmanager
    async def _standing_by(self, standby: Standby, registry: SharedRegistry) -> AsyncIterator[None]:
        """Answer on the management port as a standby."""
        query_url = ports.url(self._config.host, self._config.query_port, self._config.tls is not None)
        place = Place(os.getpid(), self._port.url, query_url, time.time(), started_by=self._config.options.started_by)
        operations: Any = StandbyOperations(
            standby, registry, self._home.root, place, self._stopping, options_view(self._config.options)
        )
        api, serving = await self._port.serve(operations, self._holder_of)
        keepers = Keepers()
        if self._certificates is not None:
            keepers.repeat("looking for new certificates", self._certificates.look, LOOK_EVERY_S)
        self._home.write_place(place, self._config.options)
        log.info("%(reason)s", {"reason": who_leads(standby)})
        try:
            yield
        finally:
            api.should_exit = True
            await serving
            await keepers.stop()

    def _holder_of(self, token: str | None) -> Holder | None:
        """Other tokens are in the registry, which only the leader reads."""
        return Holder(OPERATOR, "admin") if token is not None and self._token_file.matches(token) else None

    async def _end_left(self) -> None:
        processes = ProcessFolder(self._home.run, os.environ, self._home.python_path)
        launchers = open_launchers(facilities_of(self._config, self._home, processes))
        mine = [launcher for name, launcher in launchers.items() if name not in ELSEWHERE]
        await takeover.end_all_left(processes, self._home, mine)
