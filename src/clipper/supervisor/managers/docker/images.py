"""The images that versions run in: built or fetched on first use, removed when no version needs them."""

import asyncio
import hashlib
import logging
import tarfile
from collections import deque
from collections.abc import Callable, Collection, Coroutine, Iterator
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import IO

from clipper.errors import ContainerFailed, NotFound
from clipper.settings.version import VersionSpec
from clipper.supervisor.managers.docker.engine import Engine
from clipper.supervisor.managers.docker.options import ARTIFACT_LABEL, IMAGE_HOME_LABEL, Dockerfile, Setting, dockerfile
from clipper.supervisor.managers.launcher import RUNTIME_PARTS, OnProgress

log = logging.getLogger(__name__)

# A failed build shows this many of its last lines. An installer's own error is among them.
FAILURE_LINES = 20


@dataclass(frozen=True, slots=True)
class Sources:
    """The sources of images. ``base_image`` has a Python, unless only programs run in it."""

    base_image: str
    artifacts: Path
    package: Path


class Images:
    """The images of a home's versions. Replicas of a version that start together share a build."""

    def __init__(self, engine: Engine, sources: Sources, setting: Setting) -> None:
        self._engine = engine
        self._sources = sources
        self._setting = setting
        self._under_way: dict[str, asyncio.Task[None]] = {}

    async def image_of(self, spec: VersionSpec, on_progress: OnProgress) -> str:
        """Return the name of a version's image, once it exists. A build goes on even if nobody waits any more.
        ``on_progress`` gets lines of progress, on another thread. Raises ContainerFailed if the image cannot be made;
        ``log_tail`` has the builder's last lines; Unavailable if dockerd cannot be reached.
        """
        if spec.loader == "image":
            await self._once(spec.target, lambda: self._fetch(spec.target, on_progress))
            return spec.target
        made = dockerfile(spec, self._sources.base_image, self._runtime_digest, self._setting.home)
        await self._once(made.tag, lambda: self._build(made, spec, on_progress))
        return made.tag

    async def prune(self, artifacts: Collection[str]) -> None:
        """Remove the images of artifacts that are not among these digests."""
        for image, labels in (await self._engine.images(f"{IMAGE_HOME_LABEL}={self._setting.home}")).items():
            if labels.get(ARTIFACT_LABEL) not in artifacts:
                try:
                    await self._engine.remove_image(image)
                except ContainerFailed as error:
                    log.warning("the image %(image)s stays: %(error)s", {"image": image, "error": error})

    async def _once(self, name: str, make: Callable[[], Coroutine[None, None, None]]) -> None:
        if await self._engine.has_image(name):
            return
        if name not in self._under_way:
            self._under_way[name] = asyncio.get_running_loop().create_task(make())
            self._under_way[name].add_done_callback(lambda task: self._has_ended(name, task))
        # Shielded: others may wait for the same image when this caller is cancelled.
        await asyncio.shield(self._under_way[name])

    def _has_ended(self, name: str, task: "asyncio.Task[None]") -> None:
        del self._under_way[name]
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not log it: the callers do, with a container's name

    async def _fetch(self, name: str, on_progress: OnProgress) -> None:
        try:
            await self._engine.pull(name, on_progress)
        except (ContainerFailed, NotFound) as error:
            raise ContainerFailed(f"its image {name} is not on this machine and cannot be fetched: {error}") from error

    async def _build(self, made: Dockerfile, spec: VersionSpec, on_progress: OnProgress) -> None:
        last_lines: deque[str] = deque(maxlen=FAILURE_LINES)

        def keep(line: str) -> None:
            last_lines.append(line)
            on_progress(line)

        labels = {IMAGE_HOME_LABEL: self._setting.home, ARTIFACT_LABEL: spec.artifact}
        options = {"tag": made.tag, "labels": labels, "network_mode": self._setting.network}
        try:
            await self._engine.build(lambda file: self._write_context(file, made, spec), options, keep)
        except (ContainerFailed, NotFound) as error:
            cause = f"its image cannot be built on {self._sources.base_image}: {error}"
            raise ContainerFailed(cause, list(last_lines)) from error

    def _write_context(self, file: IO[bytes], made: Dockerfile, spec: VersionSpec) -> None:
        with tarfile.open(fileobj=file, mode="w") as tar:
            header = tarfile.TarInfo("Dockerfile")
            header.size = len(made.text.encode())
            tar.addfile(header, BytesIO(made.text.encode()))
            tar.add(self._sources.artifacts / spec.artifact, "artifact", filter=_readable)
            for path in _runtime_files(self._sources.package):
                tar.add(path, f"clipper/{path.relative_to(self._sources.package)}", filter=_readable)

    @cached_property
    def _runtime_digest(self) -> str:
        digest = hashlib.sha256()
        for path in _runtime_files(self._sources.package):
            digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()


def _runtime_files(package: Path) -> Iterator[Path]:
    for part in RUNTIME_PARTS:
        path = package / part
        yield from [path] if path.is_file() else sorted(path.rglob("*.py"))


def _readable(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Make a member readable for any user that the container runs as, since files in an image belong to root."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode |= 0o555 if member.isdir() else 0o444
    return member
