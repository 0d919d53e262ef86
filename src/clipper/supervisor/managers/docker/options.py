"""Docker's arguments for images and containers, the labels by which these are found, and the form of its logs."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
from msgspec.structs import replace

from clipper.base.oom import OOM_SCORE_ADJUSTMENT
from clipper.base.processes.limits import CONTAINER_NICENESS, Share
from clipper.settings.server import Transport
from clipper.settings.version import VersionSpec
from clipper.supervisor.managers.environments.plan import needs_of
from clipper.supervisor.managers.launcher import ContainerNote, container_argv, program_options
from clipper.supervisor.managers.logs import MAX_LOG_BYTES
from clipper.supervisor.managers.shares import environment, parse_gpus

# The label of the home that a container belongs to. Only that home's supervisor touches it.
HOME_LABEL = "clipper.home"
# The label of the home that an image belongs to. Its name differs because every container of an image, even if somebody
# else started it, inherits the image's labels.
IMAGE_HOME_LABEL = "clipper.image-home"
ARTIFACT_LABEL = "clipper.image-artifact"
NOTE_LABEL = "clipper.note"

LOOPBACK = "127.0.0.1"
# A container in a network of its own listens on this port. Docker chooses the port of this machine that maps to it.
PUBLISHED_PORT = 7000
PUBLISHED = f"tcp:0.0.0.0:{PUBLISHED_PORT}"

# Threads count: numerical libraries and Java start some hundreds.
MAX_PROCESSES = 4096
# The same as for a local process. These files are in memory, so a bound on memory counts them, too.
MAX_TEMPORARY_BYTES = 4 * 1024**3
# The CPU weight that corresponds to a local container's niceness: each step takes a fifth off the default of 1024. With
# control groups v2, whose default is 100, runc converts this to 43; runc up to 1.3.1 converted it to 13.
CPU_SHARES = round(1024 / 1.25**CONTAINER_NICENESS)

# Bounds on the folder, on this machine's disk, that a container shares with us for its socket.
MAX_FOLDER_BYTES, MAX_FOLDER_FILES = 1024**2, 100

# Containers only read our images. Libraries unpack code into /tmp, so programs may run from there.
_FILES = {"read_only": True, "tmpfs": {"/tmp": f"rw,exec,nosuid,nodev,mode=1777,size={MAX_TEMPORARY_BYTES}"}}


@dataclass(frozen=True, slots=True)
class Setting:
    """The options that all containers of a home, and the builds of their images, share; ``home`` names it in labels."""

    home: str
    network: str
    transport: Transport

    @property
    def publishes(self) -> bool:
        """Whether containers have ports of their own, which Docker publishes on ports of this machine."""
        return self.transport == "tcp" and self.network != "host"


def labels(note: ContainerNote, home: str) -> dict[str, str]:
    # dockerd tells all labels at each look. A sample may be as large as a request, and the record has it, too.
    short = replace(note, spec=replace(note.spec, sample=None))
    return {
        HOME_LABEL: home,
        "clipper.model": note.model,
        "clipper.version": note.version,
        "clipper.replica": str(note.slot),
        "clipper.start": note.id,
        NOTE_LABEL: msgspec.json.encode(short).decode(),
    }


def noted(labels: Mapping[str, str]) -> ContainerNote | None:
    """Return the note in a container's labels, without the sample; None if another version of Clipper wrote it."""
    try:
        return msgspec.json.decode(labels.get(NOTE_LABEL, ""), type=ContainerNote)
    except msgspec.MsgspecError:
        return None


def container_name(note: ContainerNote, suffix: str) -> str:
    """Return a name for people who read a list of containers. Docker refuses ``@``, ``:`` and ``#`` in it.

    ``suffix`` is random, since names are unique in dockerd, and several homes may have the same model.
    """
    return f"clipper-{re.sub(r'[^a-zA-Z0-9_.-]', '-', note.id)}-{suffix}"


def dial_address(listen: str, ports: Mapping[str, Any]) -> str:
    """Return the address to dial for a container that listens on ``listen``, by its published ``ports``."""
    published = ports.get(f"{PUBLISHED_PORT}/tcp")
    return f"tcp:{LOOPBACK}:{published[0]['HostPort']}" if listen == PUBLISHED and published else listen


def creation(
    note: ContainerNote,
    image: str,
    user: str,
    artifact: Path,
    setting: Setting,
    token: str = "",
    own: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return the arguments of the SDK's ``create_container``, except ``host_config``, which is made from ``limits``.

    ``user`` is UID:GID of the user that runs Clipper, because a container's unix socket has mode 0600. ``artifact`` is
    the unpacked artifact on this machine. ``token`` is the token of its callers; empty over a unix socket. ``own`` are
    the version's own variables.
    """
    # Docker decides which processors and GPUs the container sees.
    variables = environment(note.spec.cpus, Share(gpus=None)) | dict(own) | ({"CLIPPER_TOKEN": token} if token else {})
    given = {
        "image": image,
        "command": _command(note, artifact),
        "labels": labels(note, setting.home),
        "environment": variables,
        "ports": [PUBLISHED_PORT] if note.listen == PUBLISHED else None,
    }
    if note.spec.loader == "image":
        # Over TCP it shares no files with us, so it runs as its image's user.
        return given if token else {**given, "user": user}
    # The user has no home in the image, and can write only to /tmp.
    at_home = {"working_dir": "/tmp", "environment": {**variables, "HOME": "/tmp"}}
    return {**given, **at_home, "user": user, "entrypoint": []}


def limits(note: ContainerNote, artifact: Path, setting: Setting) -> dict[str, Any]:
    """Return the arguments of the SDK's ``create_host_config``. Folders have the same path inside as outside."""
    spec = note.spec
    return {
        **({} if spec.loader == "image" else _FILES),
        "binds": _mounts(note, artifact),
        "network_mode": setting.network,
        "port_bindings": {PUBLISHED_PORT: (LOOPBACK,)} if note.listen == PUBLISHED else None,
        "mem_limit": spec.memory_bytes,
        "cpu_shares": CPU_SHARES,
        "nano_cpus": None if spec.cpus is None else round(spec.cpus * 1e9),
        "device_requests": None if spec.gpus is None else [_device_request(note)],
        # No swap: a model that swaps answers nothing in time.
        "memswap_limit": spec.memory_bytes,
        "pids_limit": MAX_PROCESSES,
        "oom_score_adj": OOM_SCORE_ADJUSTMENT,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        # This init process reaps orphaned processes of the model, and forwards SIGTERM.
        "init": True,
        # The reconciler decides when to start it again.
        "restart_policy": {"Name": "no"},
        "log_config": {"type": "json-file", "config": {"max-size": str(MAX_LOG_BYTES), "max-file": "1"}},
    }


def _mounts(note: ContainerNote, artifact: Path) -> dict[str, dict[str, str]]:
    mounts = {}
    scheme, _, path = note.listen.partition(":")
    if scheme == "unix":
        folder = str(Path(path).parent)
        mounts[folder] = {"bind": folder, "mode": "rw"}
    if note.spec.loader == "image" and note.spec.data is not None:
        mounts[str(artifact)] = {"bind": str(artifact), "mode": "ro"}
    return mounts


def _command(note: ContainerNote, artifact: Path) -> list[str]:
    if note.spec.loader == "image":
        return program_options(note, artifact)
    if note.spec.loader != "binary":
        # Docker bounds the memory of all its processes together.
        note = replace(note, spec=replace(note.spec, memory_bytes=None))
    return container_argv(note, Path(ARTIFACT_FOLDER), PYTHON)


def _device_request(note: ContainerNote) -> dict[str, Any]:
    """Return the GPUs that were chosen for a container. If the server sees no GPU, dockerd chooses."""
    asked = parse_gpus(note.spec.gpus or "all")
    ids = note.gpus or asked.ids
    wanted = {"device_ids": list(ids)} if ids else {"count": -1 if asked.count is None else asked.count}
    return {**wanted, "capabilities": [["gpu"]]}


# The folders in an image.
ARTIFACT_FOLDER = "/clipper/artifact"
PYTHON_FOLDER = "/clipper/python"
# The image's own Python, which the base image chooses.
PYTHON = "python3"

_REPOSITORY = "clipper-model"
_REQUIREMENTS = "/clipper/requirements.txt"
_PIP = [PYTHON, "-m", "pip", "install", "--no-cache-dir", "--disable-pip-version-check"]


@dataclass(frozen=True, slots=True)
class Dockerfile:
    """A Dockerfile, and a tag that equal images share. Its context has ``clipper`` and the ``artifact``."""

    text: str
    tag: str


def dockerfile(spec: VersionSpec, base_image: str, runtime_digest: str, home: str) -> Dockerfile:
    """Return the Dockerfile of a version's image.

    ``runtime_digest`` is the digest of the files of ``RUNTIME_PARTS``. ``home`` is the home that the image belongs to:
    two homes share no image, because each removes its own.
    """
    # Docker caches the result of each line, and images that begin alike share it. So lines that change least come
    # first.
    lines = [f"FROM {base_image}"]
    if spec.loader != "binary":
        # Debian's pip refuses to change Debian's own Python. In an image, only the model uses that Python.
        lines.append("ENV PIP_BREAK_SYSTEM_PACKAGES=1")
        # A base image that has numpy needs no network here.
        lines.append(f"RUN {PYTHON} -c 'import numpy' 2>/dev/null || {' '.join(_PIP)} numpy")
        lines += _installation(spec)
        lines.append(f"COPY clipper {PYTHON_FOLDER}/clipper")
        lines.append(f"ENV PYTHONPATH={PYTHON_FOLDER} PYTHONUNBUFFERED=1")
    lines.append(f"COPY artifact {ARTIFACT_FOLDER}")
    text = "\n".join(lines) + "\n"
    content = json.dumps([text, spec.artifact, runtime_digest, home])
    return Dockerfile(text, f"{_REPOSITORY}:{hashlib.sha256(content.encode()).hexdigest()[:32]}")


def _installation(spec: VersionSpec) -> list[str]:
    """Return the installation of the user's requirements, else of the model file's needs, with the image's Python."""
    if spec.requirements is not None:
        copied = json.dumps([f"artifact/{spec.requirements}", _REQUIREMENTS])
        return [f"COPY {copied}", f"RUN {json.dumps([*_PIP, '-r', _REQUIREMENTS])}"]
    needs = [need for need in needs_of(spec) if not need.startswith("python==")]
    return [f"RUN {json.dumps([*_PIP, *needs])}"] if needs else []


# All times have this width, so texts compare as times do.
_TIME_FORM = "0000-00-00T00:00:00.000000000Z"


def lines_after(output: bytes, time: str) -> tuple[bytes, str]:
    """Return the lines of ``output`` written after ``time``, without their times, and the time of the last."""
    kept, is_new = [], False
    for line in output.splitlines(keepends=True):
        written, blank, text = line.partition(b" ")
        if not blank or len(written) != len(_TIME_FORM):
            text = line  # the rest of a long line, which Docker has split
        elif is_new := written.decode() > time:
            time = written.decode()
        if is_new:
            kept.append(text)
    return b"".join(kept), time


def line_time(nanoseconds: int) -> str:
    """Write a time since the epoch in Docker's form."""
    seconds, fraction = divmod(nanoseconds, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"


def nanoseconds(time: str) -> int:
    """Read a time that ``line_time`` wrote."""
    whole, _, fraction = time.rstrip("Z").partition(".")
    return int(datetime.fromisoformat(f"{whole}+00:00").timestamp()) * 1_000_000_000 + int(fraction)
