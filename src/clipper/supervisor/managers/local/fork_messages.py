"""What the supervisor and a fork server say to each other; ``runtime/fork_server.py`` explains it."""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct


class Fork(Struct, frozen=True, tag=True):
    """The descriptor of the container's log comes with it. Its fields are those of ``runtime.forked.Container``."""

    options: tuple[str, ...]
    variables: dict[str, str]
    folder: str
    code: str
    cores: tuple[int, ...] | None = None


class Reap(Struct, frozen=True, tag=True):
    pid: int


class Warm(Struct, frozen=True, tag=True):
    resident_bytes: Annotated[int, Meta(ge=0)]


class Unfit(Struct, frozen=True, tag=True):
    why: str


class Forked(Struct, frozen=True, tag=True):
    pid: Annotated[int, Meta(gt=1)]


class Refused(Struct, frozen=True, tag=True):
    why: str


class Reaped(Struct, frozen=True, tag=True):
    """How it exited, negative for a signal; None if it has not exited."""

    code: Annotated[int, Meta(ge=-64, le=255)] | None


Request = Fork | Reap
Reply = Warm | Unfit | Forked | Refused | Reaped

REPLY: "msgspec.json.Decoder[Reply]" = msgspec.json.Decoder(Reply)
