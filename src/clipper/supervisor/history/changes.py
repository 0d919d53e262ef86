"""Finds events in changes of the registry."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from msgspec import Struct

from clipper.control.snapshot import Newcomer
from clipper.settings.application import Link
from clipper.supervisor.history.event_log import NewEvent
from clipper.supervisor.registry.records import (
    ApplicationRecord,
    KeyRecord,
    ModelRecord,
    Record,
    TokenRecord,
    VersionRecord,
)
from clipper.supervisor.registry.store import Change, Delete, Put
from clipper.supervisor.rollout.wanted import Records
from clipper.values.types import ModelId

# A message shows at most this many characters of a value, and this many links.
_SHOWN = 40
_SHOWN_LINKS = 8


class Before(Records, Protocol):
    @property
    def tokens(self) -> Mapping[str, TokenRecord]: ...


def events_of(before: Before, changes: Iterable[Change], why: str = "") -> list[NewEvent]:
    """Return the events of changes that are made together. ``why``: the reason, if the changes do not show it."""
    return [event for change in changes for event in _of_change(before, change, why)]


def _of_change(before: Before, change: Change, why: str) -> list[NewEvent]:
    match change:
        case Put(VersionRecord() as version):
            return _of_version(before, version, why)
        case Put(ModelRecord() as model):
            return _of_model(before, model)
        case Put(ApplicationRecord() as application):
            return _of_application(before.applications.get(application.name), application, why)
        case Put(KeyRecord() as key):
            return [_of_key(before.keys.get(key.name), key)]
        case Put(TokenRecord() as token):
            return [NewEvent("token", f"token {token.name}", f"the token is made, with the role {token.role}")]
        case Delete(kind, name):
            return [_of_deletion(before, kind, name)]
        case _:  # what deleted applications learned
            return []


def _of_deletion(before: Before, kind: type[Record], name: str) -> NewEvent:
    if kind is ApplicationRecord:
        return NewEvent("application", f"application {name}", "the application is deleted")
    if kind is ModelRecord:
        return NewEvent("deployment", f"model {name}", "the model is deleted, with all its versions")
    if kind is VersionRecord:
        model, _, version = name.partition(":")
        return NewEvent("deployment", f"model {model}", f"version {version} is deleted", version)
    if kind is KeyRecord:
        return NewEvent("key", f"key {name}", "the key is revoked")
    return NewEvent("token", f"token {name}", f"the token, with the role {before.tokens[name].role}, is revoked")


def _of_key(before: KeyRecord | None, now: KeyRecord) -> NewEvent:
    if before is None:
        return NewEvent("key", f"key {now.name}", "the key is made")
    changed = _differences(before, now, leave_out=("digest", "created_at"))
    how = "the key is replaced" if before.digest != now.digest else "the key is kept"
    return NewEvent("key", f"key {now.name}", "; ".join([how, *changed]))


def _of_version(known: Before, now: VersionRecord, why: str) -> list[NewEvent]:
    subject, name, before = f"model {now.model}", f"version {now.version}", known.versions.get(now.id)
    if before is None or before.created_at != now.created_at:
        text = f"{name} is deployed, with {_replicas(now)}{_came_from(known, now)}"
        return [NewEvent("deployment", subject, text, now.version)]
    events = []
    if before.state != now.state and now.state == "failed":
        events.append(NewEvent("deployment", subject, f"{name} has failed: {now.last_error}", now.version, "error"))
    elif before.state == "starting" and now.state == "ready":
        events.append(NewEvent("deployment", subject, f"{name} is ready", now.version))
    elif before.promotion is not None and now.promotion is None and now.last_error:
        text = f"{name} did not become current: {now.last_error}"
        events.append(NewEvent("deployment", subject, text, now.version, "error"))
    if now.scaling != before.scaling:
        bounds = now.scaling
        how = "not scaled by load" if bounds is None else f"scaled by load, from {bounds.min} to {bounds.max} replicas"
        events.append(NewEvent("scaling", subject, f"{name} is {how}", now.version))
    if now.replicas_wanted != before.replicas_wanted:
        text = f"{name} gets {_replicas(now)} in place of {before.replicas_wanted}{_because(why)}"
        events.append(NewEvent("scaling", subject, text, now.version))
    return events


def _came_from(known: Before, now: VersionRecord) -> str:
    """Return from which address a new version came, and from which the present one did."""
    source = now.spec.source
    if source is None:
        return ""
    model = known.models.get(now.model)
    current = None if model is None or model.current is None else known.versions.get(ModelId(now.model, model.current))
    before = "" if current is None or current.spec.source is None else f", after {current.spec.source}"
    return f", from {source}{before}"


def _replicas(record: VersionRecord) -> str:
    return "1 replica" if record.replicas_wanted == 1 else f"{record.replicas_wanted} replicas"


def _because(why: str) -> str:
    return f": {why}" if why else ""


def _of_model(before: Before, now: ModelRecord) -> list[NewEvent]:
    """Return the events of a model's change: a new version that becomes current is a deployment, another a rollback."""
    known = before.models.get(now.name)
    old = known.current if known else None
    if now.current is None or now.current == old:
        return []
    subject, version = f"model {now.name}", before.versions.get(ModelId(now.name, now.current))
    # A version becomes current once it is ready, long after the call that requested it.
    by = None if version is None or version.promotion is None else version.promoted_by
    if old is None:
        return [NewEvent("deployment", subject, f"version {now.current} is current", now.current, by=by)]
    if version is not None and version.is_new:
        text = f"version {now.current} is current, in place of version {old}"
        return [NewEvent("deployment", subject, text, now.current, by=by)]
    text = f"the model is rolled back to version {now.current} from version {old}"
    return [NewEvent("rollback", subject, text, now.current, "warning", by)]


def _of_application(before: ApplicationRecord | None, now: ApplicationRecord, why: str) -> list[NewEvent]:
    subject = f"application {now.name}"
    if before is None:
        text = f"the application is created: {_links(now.links)}, policy {now.selection.policy}"
        return [NewEvent("application", subject, text)]
    changed = [
        *_differences(before, now, leave_out=("links", "selection", "newcomers", "watched", "ramps", "ended_ramps")),
        *_differences(before.selection, now.selection, leave_out=("code",)),
    ]
    if before.links != now.links:
        changed.append(f"links {_links(now.links)} in place of {_links(before.links)}")
    events = (
        [] if not changed else [NewEvent("application", subject, f"the application is changed: {'; '.join(changed)}")]
    )
    return events + _of_newcomers(subject, before.newcomers, now.newcomers, why)


def _of_newcomers(subject: str, before: tuple[Newcomer, ...], now: tuple[Newcomer, ...], why: str) -> list[NewEvent]:
    known, events = {one.ramp: one for one in before}, []
    for one in now:
        old = known.pop(one.ramp, None)
        if one.stopped is not None and (old is None or old.stopped is None):
            text = f"{one.name} is stopped: {one.stopped}"
            events.append(NewEvent("guardrail", subject, text, one.version, "warning"))
        elif old is None:
            text = f"{one.name} is new to it, and gets a share of the queries until feedback has shown its worth"
            events.append(NewEvent("ramp", subject, text, one.version))
    for gone in known.values():
        if gone.stopped is None:
            events.append(NewEvent("ramp", subject, f"{gone.name} is not ramped any more{_because(why)}", gone.version))
    return events


def _differences(before: Struct, now: Struct, leave_out: tuple[str, ...]) -> list[str]:
    return [
        f"{name} {_shown(new)} in place of {_shown(old)}"
        for name in type(now).__struct_fields__
        if name not in leave_out and (old := getattr(before, name)) != (new := getattr(now, name))
    ]


def _shown(value: Any) -> str:
    words: dict[Any, str] = {None: "none", True: "yes", False: "no"}
    text = words[value] if value is None or isinstance(value, bool) else str(value)
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"


def _links(links: Sequence[Link]) -> str:
    """Write which models are linked, and which of them are shadows, which never answer."""
    shown = list(map(str, links))
    more = [f"{len(shown) - _SHOWN_LINKS} more"] if len(shown) > _SHOWN_LINKS else []
    return ", ".join(shown[:_SHOWN_LINKS] + more) or "no model"
