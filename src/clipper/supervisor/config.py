"""The supervisor's settings: read once, from its command line, and checked here."""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from clipper.types import Transport

QUERY_PORT = 1337
MANAGEMENT_PORT = 1338
CACHE_BYTES = 64 * 1024 * 1024
MAX_BODY_BYTES = 8 * 1024 * 1024
# Pickled models want the Python that they were made with, which is most likely ours.
DOCKER_BASE_IMAGE = f"python:{sys.version_info.major}.{sys.version_info.minor}-slim"
DOCKER_NETWORK = "bridge"
DOCKER_TRANSPORT: Transport = "unix"

# Smaller ones would refuse what anybody sends; larger ones take a worker tenths of a second of its time to read.
LEAST_MAX_BODY_BYTES = 64 * 1024
MOST_MAX_BODY_BYTES = 64 * 1024 * 1024
# Each is one event loop; more than this many cores on one machine call for several machines.
MAX_WORKERS = 64


@dataclass(frozen=True, slots=True)
class Config:
    """What a server is started with.

    Attributes:
        query_port, management_port: 0 is any free port.
        cache_bytes: of each worker.
        max_body_bytes: of a request on the query port, where an application's inputs need no more.
        store: address of the selection store; None is a file in the home.
        docker_base_image: what images of models are built on.
        docker_network: of containers and builds in Docker.
        docker_transport: how containers in Docker are dialled.
    """

    home: Path
    host: str = "127.0.0.1"
    query_port: int = QUERY_PORT
    management_port: int = MANAGEMENT_PORT
    workers: int = 1
    cache_bytes: int = CACHE_BYTES
    max_body_bytes: int = MAX_BODY_BYTES
    store: str | None = None
    docker_base_image: str = DOCKER_BASE_IMAGE
    docker_network: str = DOCKER_NETWORK
    docker_transport: Transport = DOCKER_TRANSPORT


def parse_command_line(arguments: Sequence[str] | None = None) -> Config:
    """Read the command line, or ``arguments``. Exits with code 2 if it is wrong."""
    parser = argparse.ArgumentParser(prog="python -m clipper.supervisor", description="Run a Clipper server.")
    parser.add_argument("--home", type=Path, required=True, help="the folder of registry, artifacts, sockets and logs")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--query-port", type=_between(0, 65535), default=QUERY_PORT, help="0: any free port")
    parser.add_argument("--management-port", type=_between(0, 65535), default=MANAGEMENT_PORT, help="0: any free port")
    parser.add_argument("--workers", type=_between(1, MAX_WORKERS), default=1, help="how many query workers")
    parser.add_argument("--cache-bytes", type=_between(0, 1 << 50), default=CACHE_BYTES, help="of each worker's cache")
    parser.add_argument(
        "--max-body-bytes",
        type=_between(LEAST_MAX_BODY_BYTES, MOST_MAX_BODY_BYTES),
        default=MAX_BODY_BYTES,
        help="of a request on the query port, where an application's inputs need no more",
    )
    parser.add_argument(
        "--store", type=_absolute, help="where learned state is kept: sqlite:PATH (in the home by default) or redis://…"
    )
    parser.add_argument("--docker-base-image", default=DOCKER_BASE_IMAGE, help="what images of models are built on")
    parser.add_argument("--docker-network", default=DOCKER_NETWORK, help="of containers and builds in Docker")
    parser.add_argument(
        "--docker-transport",
        choices=get_args(Transport),
        default=DOCKER_TRANSPORT,
        help="how its containers are dialled",
    )
    config = Config(**vars(parser.parse_args(arguments)))
    if config.docker_transport == "tcp" and config.docker_network == "none":
        parser.error("--docker-transport tcp: nothing reaches a container in --docker-network none; choose another")
    return config


def _absolute(store: str) -> str:
    """Workers run in another folder than we do."""
    scheme, _, path = store.partition(":")
    return f"sqlite:{Path(path).expanduser().absolute()}" if scheme == "sqlite" and path else store


def _between(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text)
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{number} is not between {least} and {most}")
        return number

    return parse
