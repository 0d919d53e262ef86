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
    """Something that happened to what the server has.

    Attributes:
        id: counts up.
        time_s: when, in seconds since 1970.
        subject: ``application NAME``, ``model NAME``, ``worker INDEX``, ``key NAME``, ``token NAME`` or
            ``server``.
        version: of the model, if the event is about one.
        who: whose change it was: the name of a token, ``operator`` for the server's own, ``clipper`` for what the
            server decided itself or saw. Empty in events of earlier versions.
        address: where that call came from; None if it came from nowhere.
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
    """Events, oldest first. ``next``, given as ``after``, asks for those that come later."""

    events: tuple[Event, ...]
    next: int


class Step(Struct, frozen=True):
    """A step of the history: something that was seen or decided on the server. ``at``: seconds since 1970.
    ``subject``: a version, a replica, a worker, ``workers`` for all of them, or an application.
    """

    at: float
    subject: str
    text: str
