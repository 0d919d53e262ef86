"""The supervisor's settings, read from its command line and checked."""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

from clipper.base.extras import has_cryptography, has_grpc
from clipper.base.run_as import RunAs, find_run_as
from clipper.base.tls.material import TlsMode
from clipper.errors import InvalidArgument
from clipper.settings.fields import Described, settings_of
from clipper.settings.server import ADDRESSES, GRPC_PORT, ServerSettings, why_not_together
from clipper.settings.start_options import StartOptions, decode, start_options
from clipper.settings.texts import read_registry
from clipper.values.types import START_VARIABLE, STOPS_WITH

# Stores that other machines can reach.
REDIS_SCHEMES = ("redis://", "rediss://")


class Config(ServerSettings, frozen=True):
    """The settings that a server is started with.

    ``stops_with`` is the reading end of a pipe, at whose end the server stops. ``started`` are the options of the
    command that starts the server; None if there is no such command.
    """

    home: Path
    stops_with: int | None = None
    started: StartOptions | None = None

    @property
    def options(self) -> StartOptions:
        if self.started is not None:
            return self.started
        usual = ServerSettings()
        given = {name: getattr(self, name) for name in ServerSettings.__struct_fields__}
        return start_options(
            {name: value for name, value in given.items() if value != getattr(usual, name)}, {}, "foreground"
        )

    @property
    def tls_mode(self) -> TlsMode:
        if self.tls is None:
            return "off"
        return "server" if self.tls_client_ca is None else "mutual"

    @property
    def store_address(self) -> str | None:
        """The store of learned state, which servers of one registry share; None means a file in the home."""
        return self.store or self.registry

    @property
    def wanted_grpc_port(self) -> int | None:
        """The configured gRPC port; 0 for any free port, None for no port."""
        if self.grpc_port == "off" or not has_grpc():
            return None
        if self.grpc_port is not None:
            return self.grpc_port
        # A server on any free port is one of several on its machine.
        return GRPC_PORT if self.query_port else 0

    @property
    def models_user(self) -> RunAs | None:
        """The user that models run as; None means the server's user. Raises InvalidArgument if the user is gone."""
        return None if self.run_as is None else find_run_as(self.run_as)


class _Parser(argparse.ArgumentParser):
    """A parser that reports faults without this program's usage: ``clipper start`` passes its own options on."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"clipper: {message}\n")


def parse_command_line(arguments: Sequence[str] | None = None) -> Config:
    """Read the command line, or ``arguments``. If it is wrong, say why in a line and exit with code 2."""
    parser = _Parser(
        prog="python -m clipper.supervisor", description="Run a Clipper server.", argument_default=argparse.SUPPRESS
    )
    parser.add_argument("--home", type=Path, required=True, help="the folder of registry, artifacts, sockets and logs")
    parser.add_argument(STOPS_WITH, type=int, help="a descriptor, at whose end the server stops")
    for described in settings_of(ServerSettings):
        parser.add_argument("--" + described.name.replace("_", "-"), help=described.setting.help, **_reading(described))
    # Addresses may have passwords, and everybody on the machine can read command lines: they come in the environment.
    for name, variable in ADDRESSES.items():
        if address := os.environ.get(variable):
            parser.set_defaults(**{name: address})
    given = vars(parser.parse_args(arguments))
    lists = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    started = None
    if told := os.environ.get(START_VARIABLE):
        try:
            started = decode(told.encode())
        except InvalidArgument as error:
            parser.error(f"{START_VARIABLE} {error}")
    config = Config(**given | lists, started=started)
    if wrong := why_not_together(config):
        parser.error(f"{wrong.options}: {wrong.why}")
    if config.docker_transport == "tcp" and config.docker_network == "none":
        parser.error("--docker-transport tcp: nothing reaches a container in --docker-network none; choose another")
    if config.remember_in_store and (config.store_address or "sqlite:").startswith("sqlite:"):
        parser.error("--remember-in-store: other servers find queries in a Redis: give --store redis://HOST:PORT/DB")
    if why := _why_not_on_nodes(config):
        parser.error(f"--workers-per-node {config.workers_per_node}: {why}")
    return config


def _why_not_on_nodes(config: Config) -> str | None:
    """Return why workers cannot run on the nodes of a cluster with these settings; None if they can, or shall not."""
    if not config.workers_per_node:
        return None
    if config.manager != "ray":
        return f"nodes are those of a Ray cluster: expected --manager ray, not {config.manager}"
    if not has_cryptography():
        return "it needs the extra ray: pip install 'clipper-serving[ray]'"
    if not (config.store_address or "").startswith(REDIS_SCHEMES):
        return "workers on several machines share what policies learn in Redis: give --store redis://HOST:PORT/DB"
    usual = ServerSettings()
    if config.workers != usual.workers:
        return "no worker runs on this machine then: leave out --workers"
    if config.host != usual.host:
        return "each worker listens at its node's address in Ray: leave out --host"
    if 0 in (config.query_port, config.grpc_port):
        return "clients and balancers find each node at one port: give --query-port and --grpc-port other than 0"
    return None


def _reading(described: Described) -> dict[str, Any]:
    """Return the arguments for argparse: by the setting's type, or special arguments for some settings."""
    kind, setting = described.type, described.setting
    if kind is bool:
        return {"action": "store_true"}
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind)}
    by_type: Callable[[str], Any] = Path if kind == (Path | None) else str
    if setting.least is not None:
        by_type = int if kind is int else float
    read = _READ_HERE.get(described.name) or setting.read or by_type

    def parse(text: str) -> Any:
        try:
            value = read(text)
            setting.check("it", value)
        except InvalidArgument as error:
            raise argparse.ArgumentTypeError(str(error)) from error
        return value

    return {"action": "append" if kind == tuple[str, ...] else "store", "type": parse}


def _run_as(text: str) -> str:
    find_run_as(text)
    return text


def _store_address(store: str) -> str:
    """Read the address, from a file if it names a file. Make its path absolute: workers run in another folder."""
    scheme, _, path = store.partition(":")
    if scheme == "file":
        try:
            return _store_address(Path(path).expanduser().read_text().strip())
        except (OSError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidArgument(f"{path} cannot be read: {type(error).__name__}") from error
    return f"sqlite:{Path(path).expanduser().absolute()}" if scheme == "sqlite" and path else store


_READ_HERE: dict[str, Callable[[str], Any]] = {
    "store": _store_address,
    "registry": lambda text: read_registry(_store_address(text)),
    "run_as": _run_as,
}
