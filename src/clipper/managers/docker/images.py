"""The images that versions run in: built or fetched when first asked for, removed when no version needs them."""

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
from clipper.managers.docker.engine import Engine
from clipper.managers.docker.options import ARTIFACT_LABEL, IMAGE_HOME_LABEL, Surroundings
from clipper.managers.docker.recipe import RUNTIME_PARTS, Recipe, recipe
from clipper.settings.version import VersionSpec

log = logging.getLogger(__name__)

# Of a build that failed: an installer's own error is among the last.
FAILURE_LINES = 20


@dataclass(frozen=True, slots=True)
class Sources:
    """What images are made of.

    Attributes:
        base_image: with Python, unless only programs are to run in it.
        artifacts: the folder of unpacked artifacts, by their digests.
        package: Clipper's own.
    """

    base_image: str
    artifacts: Path
    package: Path


class Images:
    """The images of one home's versions. Replicas of a version that start together wait for one build."""

    def __init__(self, engine: Engine, sources: Sources, around: Surroundings) -> None:
        self._engine = engine
        self._sources = sources
        self._around = around
        self._under_way: dict[str, asyncio.Task[None]] = {}

    async def image_of(self, spec: VersionSpec, tell: Callable[[str], None]) -> str:
        """Return the name of a version's image, once it is there. It is made even if nobody waits for it any more.

        Args:
            tell: gets the lines of progress, on another thread.

        Raises:
            ContainerFailed: it cannot be made; ``log_tail`` has the builder's last lines.
            Unavailable: dockerd cannot be reached.
        """
        if spec.loader == "image":
            await self._once(spec.target, lambda: self._fetch(spec.target, tell))
            return spec.target
        made = recipe(spec, self._sources.base_image, self._runtime_digest, self._around.home)
        await self._once(made.tag, lambda: self._build(made, spec, tell))
        return made.tag

    async def prune(self, artifacts: Collection[str]) -> None:
        """Remove the images of artifacts that are not among these, by their digests."""
        for image, labels in (await self._engine.images(f"{IMAGE_HOME_LABEL}={self._around.home}")).items():
            if labels.get(ARTIFACT_LABEL) not in artifacts:
                try:
                    await self._engine.remove_image(image)
                except ContainerFailed as error:
                    log.warning("the image %s stays: %s", image, error)

    async def _once(self, name: str, make: Callable[[], Coroutine[None, None, None]]) -> None:
        if await self._engine.has_image(name):
            return
        if name not in self._under_way:
            self._under_way[name] = asyncio.get_running_loop().create_task(make())
            self._under_way[name].add_done_callback(lambda task: self._has_ended(name, task))
        # Whoever is stopped meanwhile may not be the only one who waits for it.
        await asyncio.shield(self._under_way[name])

    def _has_ended(self, name: str, task: "asyncio.Task[None]") -> None:
        del self._under_way[name]
        if not task.cancelled():
            task.exception()  # whoever waits tells it, with the container's name; asyncio would if nobody does any more

    async def _fetch(self, name: str, tell: Callable[[str], None]) -> None:
        try:
            await self._engine.pull(name, tell)
        except (ContainerFailed, NotFound) as error:
            raise ContainerFailed(f"its image {name} is not here and cannot be fetched: {error}") from error

    async def _build(self, made: Recipe, spec: VersionSpec, tell: Callable[[str], None]) -> None:
        last_lines: deque[str] = deque(maxlen=FAILURE_LINES)

        def keep(line: str) -> None:
            last_lines.append(line)
            tell(line)

        labels = {IMAGE_HOME_LABEL: self._around.home, ARTIFACT_LABEL: spec.artifact}
        options = {"tag": made.tag, "labels": labels, "network_mode": self._around.network}
        try:
            await self._engine.build(lambda file: self._write_context(file, made, spec), options, keep)
        except (ContainerFailed, NotFound) as error:
            cause = f"its image cannot be built on {self._sources.base_image}: {error}"
            raise ContainerFailed(cause, list(last_lines)) from error

    def _write_context(self, file: IO[bytes], made: Recipe, spec: VersionSpec) -> None:
        """Write the tar that an image is built of."""
        with tarfile.open(fileobj=file, mode="w") as tar:
            header = tarfile.TarInfo("Dockerfile")
            header.size = len(made.dockerfile.encode())
            tar.addfile(header, BytesIO(made.dockerfile.encode()))
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
    """For whoever the container runs as: the image is root's."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode |= 0o555 if member.isdir() else 0o444
    return member
