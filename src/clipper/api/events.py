"""Schemas of events, which are kept, and of the history's steps, which are not."""

from typing import Literal

from msgspec import Struct

Kind = Literal[
    "application",
    "crash_loop",
    "deployment",
    "guardrail",
    "key",
    "lost",
    "ramp",
    "restart",
    "rollback",
    "scaling",
    "server",
    "test",
    "token",
]
Level = Literal["info", "warning", "error"]

DEFAULT_EVENTS = 200
# Some hundred kB of JSON.
MAX_EVENTS_AT_ONCE = 1000


class Event(Struct, frozen=True):
    """An event: something that happened on the server.

    Attributes:
        id: counts up.
        time_s: when it happened, in seconds since 1970.
        subject: ``application NAME``, ``model NAME``, ``worker INDEX``, ``key NAME``, ``token NAME`` or
            ``server``.
        version: the version of the model, if the event is about a version.
        who: the caller who made the change: the name of a token, ``operator`` for the server's own token, ``clipper``
            if the server itself decided or noticed it. Empty in events of earlier versions.
        address: the caller's address; None if there was no caller.
    """

    id: int
    time_s: float
    kind: Kind
    subject: str
    message: str
    version: str | None = None
    level: Level = "info"
    who: str = ""
    address: str | None = None


class Events(Struct, frozen=True):
    """Events, oldest first. ``next``, given as ``after``, asks for later events."""

    events: tuple[Event, ...]
    next: int


class Step(Struct, frozen=True):
    """A step of the history: something that was seen or decided on the server. ``at``: seconds since 1970.
    ``subject``: a version, a replica, a worker, ``workers`` for all of them, or an application.
    """

    at: float
    subject: str
    text: str
