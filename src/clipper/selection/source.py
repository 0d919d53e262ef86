"""Which versions gave an answer, in the forms in which answers say so."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec


class Source(msgspec.Struct, gc=False, eq=False):
    """The versions whose outputs an answer was made from. It is made once for many answers.

    Attributes:
        text: all of them, e.g. ``digits:2`` or ``digits:2,forest:1``; empty if the answer does not say.
        version: the version, if there is exactly one.
        parameters: ``model`` and ``version`` if there is exactly one, else ``models``, which is the text.
        parameters_json: the same as members of a JSON object, each behind a comma: ``,"model":"digits","version":"2"``.
        json: likewise, but several versions are a list: ``,"models":["digits:2","forest:1"]``.
    """

    text: str
    version: str | None
    parameters: Mapping[str, str]
    parameters_json: bytes
    json: bytes


# The source of a default, and of all answers of an application that does not show its models.
NO_SOURCE = Source("", None, {}, b"", b"")


def make_source(names: Sequence[str]) -> Source:
    """Return the source of answers by these versions, at least one, each as ``MODEL:VERSION``."""
    text = ",".join(names)
    if len(names) > 1:
        several = {"models": text}
        return Source(text, None, several, _members(several), _members({"models": names}))
    model, _, version = text.partition(":")
    one = {"model": model, "version": version}
    return Source(text, version, one, _members(one), _members(one))


def _members(fields: Mapping[str, Any]) -> bytes:
    return b"," + msgspec.json.encode(fields)[1:-1]
