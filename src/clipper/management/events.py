"""What the management API tells of what happened."""

from msgspec import Struct


class Event(Struct, frozen=True):
    """Something that happened, or was decided, on the server.

    Attributes:
        at: seconds since 1970.
        subject: what it is about: a version, a replica, a worker, ``workers`` for all of them, or an application.
    """

    at: float
    subject: str
    text: str
