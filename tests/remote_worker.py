"""A real worker whose control channel is on TCP."""

import asyncio
import json
import socket

from clipper.control.address import TcpAddress
from clipper.control.identity import PeerName, Secured, write_identity
from clipper.control.messages import Command, R
from clipper.supervisor.workers.ports import port_of
from tests.control_channel import LEADS, NOW, ask, authority, contexts
from tests.ports import keep_port
from tests.serving import Process, Serving
from tests.waiting import TIMEOUT_S


class RemoteWorker(Process):
    """``at``: another's ports are its own, too. ``config``: what it has besides."""

    def __init__(self, system: Serving, instance: int, at: "RemoteWorker | None" = None, **config: object) -> None:
        self.name = PeerName("worker", instance)
        self._held: tuple[socket.socket, socket.socket] = (keep_port(), keep_port()) if at is None else at._held
        self.port = port_of(self._held[0])
        self.address = TcpAddress("127.0.0.1", port_of(self._held[1]))
        identity = system.folder / f"identity-{instance}.pem"
        write_identity(identity, authority(0).issue(self.name, NOW))
        config |= {
            "index": instance,
            "instance": instance,
            "host": "127.0.0.1",
            "port": self.port,
            "control": str(self.address),
            "identity": str(identity),
            "store": f"sqlite:{system.folder / 'selection.sqlite3'}",
        }
        super().__init__("clipper.worker", ["--config", json.dumps(config)], system.folder / f"remote-{instance}.log")
        system.others.append(self)

    def stop(self) -> None:
        super().stop()
        for held in self._held:
            held.close()

    def ask(self, command: Command[R], name: PeerName = LEADS) -> R:
        secured = Secured(contexts(name).dialling, self.name)
        return asyncio.run(ask(self.address, command, TIMEOUT_S, secured=secured))
