"""The history's events in the management API."""

from msgspec import Struct


class Event(Struct, frozen=True):
    """Something that happened or was decided on the server.

    Attributes:
        at: seconds since 1970.
        subject: a version, a replica, a worker, ``workers`` for all of them, or an application.
    """

    at: float
    subject: str
    text: str
