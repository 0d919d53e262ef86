"""Which calls turn an application's links into others, without a moment in which no model is linked."""

from collections.abc import Sequence
from dataclasses import dataclass

from clipper.settings.application import Link


@dataclass(frozen=True, slots=True)
class LinkCall:
    """``Clipper.link`` of ``name``, ``MODEL`` or ``MODEL:VERSION``, or ``unlink`` of it if ``link`` is None."""

    name: str
    link: Link | None


def link_calls(actual: Sequence[Link], wanted: Sequence[Link]) -> list[LinkCall]:
    """The calls, in order.

    A call of ``MODEL`` sets the only link of a model, or of several the one that follows the current version; one of
    ``MODEL:VERSION`` sets the link to that version, beside the others.
    """
    calls: list[LinkCall] = []
    for model in dict.fromkeys(link.model for link in (*wanted, *actual)):
        before = {link.version: link for link in actual if link.model == model}
        after = {link.version: link for link in wanted if link.model == model}
        if len(before) == len(after) == 1:
            # The same link, with another version or other options: it is replaced, whatever its version.
            if before != after:
                calls.append(LinkCall(model, next(iter(after.values()))))
            continue
        if None in after and None not in before and len(before) == 1:
            # A call of MODEL would replace the only link: it is made first, and that link again after it.
            calls.append(LinkCall(model, after[None]))
            before = {None: after[None]}
        # A link that follows comes first: it would take the place of a pinned one that is alone.
        for version, link in sorted(after.items(), key=lambda item: item[0] is not None):
            if before.get(version) != link:
                calls.append(LinkCall(model if version is None else f"{model}:{version}", link))
        gone = [version for version in before if version not in after]
        # A link that follows goes first: MODEL would mean a pinned one if that were alone.
        for version in sorted(gone, key=lambda version: version is not None):
            calls.append(LinkCall(model if version is None else f"{model}:{version}", None))
    return calls
