"""dockerd, through its SDK. The SDK's calls block, so each runs in a thread of its own."""

import asyncio
import re
import socket
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import IO, Any, TypeVar

import docker
import requests
import urllib3
from docker.errors import APIError, DockerException
from docker.utils import kwargs_from_env

from clipper.errors import ClipperError, ContainerFailed, NotFound, Unavailable

# Most calls take milliseconds. Creating a container of a large image on a busy disk can take seconds.
CALL_TIMEOUT_S = 60.0
# Further concurrent calls would only wait inside dockerd.
MAX_CALLS = 8
# The longest silence of an installer or of a download's progress.
BUILD_SILENCE_S = 600.0
# A build can keep a processor, the disk and the network busy.
MAX_BUILDS = 2

# The SDK's name for the newest version of the API that dockerd and the SDK both know.
_AGREED = "auto"
_DEFAULT_HOST = "unix:///var/run/docker.sock"
# The colour that the builder gives to standard error.
_COLOUR = re.compile(r"\x1b\[[\d;]*m")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ListedContainer:
    """A container that dockerd lists. ``labels`` are those that it was created with."""

    id: str
    labels: Mapping[str, str]
    is_running: bool


@dataclass(frozen=True, slots=True)
class State:
    """The state of a container. ``pid`` is 0 unless it runs, and ``exit_code`` is meaningful only if it does not.
    ``ports``: see ``options.dial_address``.
    """

    is_running: bool
    pid: int
    exit_code: int
    ran_out_of_memory: bool
    ports: Mapping[str, Any]


class Engine:
    """A dockerd, which may come and go.

    Every method raises ``Unavailable`` while it cannot be reached, ``NotFound`` for a container or image that does not
    exist, and ``ContainerFailed`` if dockerd refuses.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._host = environ.get("DOCKER_HOST", _DEFAULT_HOST)
        self._version = _AGREED
        self._calls = asyncio.Semaphore(MAX_CALLS)
        self._builds = asyncio.Semaphore(MAX_BUILDS)

    async def is_rootless(self) -> bool:
        """Ask whether root in a container is the user that runs dockerd."""
        return "name=rootless" in (await self._call(lambda client: client.info()))["SecurityOptions"]

    async def containers(self, label: str) -> list[ListedContainer]:
        """Return all containers that have a label, given as ``name=value``."""
        listed = await self._call(lambda client: client.containers(all=True, filters={"label": label}))
        return [ListedContainer(one["Id"], one["Labels"], one["State"] == "running") for one in listed]

    async def create(self, name: str, options: Mapping[str, Any], limits: Mapping[str, Any]) -> str:
        """Create a container; return its id. ``docker.options`` makes the arguments."""

        def ask(client: Any) -> str:
            host_config = client.create_host_config(**limits)
            return str(client.create_container(name=name, host_config=host_config, **options)["Id"])

        return await self._call(ask)

    async def start(self, container: str) -> None:
        await self._call(lambda client: client.start(container))

    async def state(self, container: str) -> State:
        found = await self._call(lambda client: client.inspect_container(container))
        state, ports = found["State"], found["NetworkSettings"]["Ports"]
        return State(state["Running"], state["Pid"], state["ExitCode"], state["OOMKilled"], ports)

    async def stop(self, container: str, grace_s: float) -> None:
        """Send SIGTERM to a container, then SIGKILL if it still runs after ``grace_s``. Return when it has ended."""
        await self._call(lambda client: client.stop(container, timeout=round(grace_s)))

    async def remove(self, container: str) -> None:
        """Remove a container, and kill it first if it still runs."""
        with suppress(NotFound):
            await self._call(lambda client: client.remove_container(container, v=True, force=True))

    async def output(self, container: str, since_s: float) -> bytes:
        """Return a container's output since ``since_s``, in seconds since 1970, in the form for ``lines_after``."""

        def ask(client: Any) -> bytes:
            # Docker refuses 0, and nothing is that old.
            return bytes(client.logs(container, timestamps=True, since=max(since_s, 1.0)))

        return await self._call(ask)

    async def has_image(self, name: str) -> bool:
        try:
            await self._call(lambda client: client.inspect_image(name))
        except NotFound:
            return False
        return True

    async def images(self, label: str) -> dict[str, Mapping[str, str]]:
        """Return the labels of all images that have a label, given as ``name=value``, by the image's id."""
        listed = await self._call(lambda client: client.images(filters={"label": label}))
        return {one["Id"]: one["Labels"] for one in listed}

    async def remove_image(self, image: str) -> None:
        with suppress(NotFound):
            await self._call(lambda client: client.remove_image(image, force=True))

    async def pull(self, name: str, on_line: Callable[[str], None]) -> None:
        """Fetch an image. ``on_line`` is called with lines of progress, on another thread."""
        await self._follow(lambda client: client.pull(name, stream=True, decode=True), on_line)

    async def build(
        self, write_context: Callable[[IO[bytes]], None], options: Mapping[str, Any], on_line: Callable[[str], None]
    ) -> None:
        """Build an image from the tar that ``write_context`` writes, with further arguments of the SDK's ``build``.

        Both functions are called on another thread; ``on_line`` gets lines of progress.
        """

        def ask(client: Any) -> Iterator[Any]:
            with tempfile.TemporaryFile() as context:
                write_context(context)
                context.seek(0)
                yield from client.build(
                    fileobj=context,
                    custom_context=True,
                    decode=True,
                    rm=True,
                    forcerm=True,
                    use_config_proxy=True,
                    timeout=BUILD_SILENCE_S,
                    **options,
                )

        await self._follow(ask, on_line)

    async def _follow(self, ask: Callable[[Any], Iterable[Any]], on_line: Callable[[str], None]) -> None:
        def follow(client: Any) -> None:
            for event in ask(client):
                for line in _lines(event):
                    on_line(line)
                if "error" in event:
                    raise ContainerFailed(event["error"].strip())

        async with self._builds:
            await in_thread(lambda: self._answer(follow))

    async def _call(self, ask: Callable[[Any], T]) -> T:
        async with self._calls:
            return await in_thread(lambda: self._answer(ask))

    def _answer(self, ask: Callable[[Any], T]) -> T:
        try:
            # A client serves one thread at a time, and is cheap to make.
            with closing(self._new_client()) as client:
                self._version = client.api_version
                return ask(client)
        except APIError as error:
            kind: type[ClipperError] = NotFound if error.status_code == 404 else ContainerFailed
            raise kind(f"dockerd refuses: {error.explanation or error}") from error
        except (DockerException, requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            # After a restart dockerd may have another version.
            self._version = _AGREED
            raise Unavailable(
                f"dockerd cannot be reached at {self._host}: {error}; "
                "start it, give this user access to its socket, or set DOCKER_HOST"
            ) from error

    def _new_client(self) -> Any:
        scheme, _, path = self._host.partition("://")
        if scheme == "unix":
            # Try first: if nobody listens, the SDK would leave its own socket to the garbage collector.
            with socket.socket(socket.AF_UNIX) as dialled:
                dialled.connect(path)
        where = kwargs_from_env(environment=self._environ)
        return docker.APIClient(version=self._version, timeout=CALL_TIMEOUT_S, **where)


async def in_thread(act: Callable[[], T]) -> T:
    """Run a blocking call in a daemon thread. A call that hangs blocks neither the event loop nor our exit."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def settle(result: T | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # None only if there is an error

    def run() -> None:
        result, failure = None, None
        try:
            result = act()
        except BaseException as error:  # noqa: BLE001  # passed on to the caller, who waits
            failure = error
        with suppress(RuntimeError):  # the loop has ended, so nobody waits any more
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, daemon=True).start()
    return await done


def _lines(event: Mapping[str, Any]) -> list[str]:
    """Return the lines of an event of a build or download, without lines that only show a download's progress."""
    if "stream" in event:
        return [line for line in _COLOUR.sub("", event["stream"]).splitlines() if line.strip()]
    if "status" in event and "progress" not in event:
        return [" ".join(str(event[key]) for key in ("id", "status") if key in event)]
    return []
