"""Finds the events in changes of the registry."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from msgspec import Struct

from clipper.control.snapshot import Newcomer
from clipper.events.log import NewEvent
from clipper.registry.records import ApplicationRecord, KeyRecord, ModelRecord, TokenRecord, VersionRecord
from clipper.registry.store import (
    Change,
    DeleteApplication,
    DeleteKey,
    DeleteModel,
    DeleteToken,
    DeleteVersion,
    Put,
)
from clipper.rollout.wanted import Records
from clipper.settings.application import link_names
from clipper.types import ModelId

# A message leaves out a value that is longer than this.
_SHOWN = 40


class Before(Records, Protocol):
    """The records before a change."""

    @property
    def tokens(self) -> Mapping[str, TokenRecord]: ...


def events_of(before: Before, changes: Iterable[Change], why: str = "") -> list[NewEvent]:
    """The events of changes that are made together.

    Args:
        why: the reason, where the change alone does not show it, such as why a version is scaled.
    """
    return [event for change in changes for event in _of_change(before, change, why)]


def _of_change(before: Before, change: Change, why: str) -> list[NewEvent]:
    match change:
        case Put(VersionRecord() as version):
            return _of_version(before.versions.get(version.id), version, why)
        case Put(ModelRecord() as model):
            return _of_model(before, model)
        case Put(ApplicationRecord() as application):
            return _of_application(before.applications.get(application.name), application, why)
        case Put(KeyRecord() as key):
            return [
                NewEvent("key", f"key {key.name}", f"the key is {'replaced' if key.name in before.keys else 'made'}")
            ]
        case Put(TokenRecord() as token):
            # Without its name, since only an admin may list tokens.
            return [NewEvent("token", "token", f"a token of the role {token.role} is made")]
        case DeleteApplication(name):
            return [NewEvent("application", f"application {name}", "the application is deleted")]
        case DeleteModel(name):
            return [NewEvent("deployment", f"model {name}", "the model is deleted, with all its versions")]
        case DeleteVersion(id_):
            return [NewEvent("deployment", f"model {id_.name}", f"version {id_.version} is deleted", id_.version)]
        case DeleteKey(name):
            return [NewEvent("key", f"key {name}", "the key is revoked")]
        case DeleteToken(name):
            return [NewEvent("token", "token", f"a token of the role {before.tokens[name].role} is revoked")]
        case _:  # what deleted applications learned
            return []


def _of_version(before: VersionRecord | None, now: VersionRecord, why: str) -> list[NewEvent]:
    subject, name = f"model {now.model}", f"version {now.version}"
    if before is None or before.created_at != now.created_at:
        return [NewEvent("deployment", subject, f"{name} is deployed, with {_replicas(now)}", now.version)]
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


def _replicas(record: VersionRecord) -> str:
    return "1 replica" if record.replicas_wanted == 1 else f"{record.replicas_wanted} replicas"


def _because(why: str) -> str:
    return f": {why}" if why else ""


def _of_model(before: Before, now: ModelRecord) -> list[NewEvent]:
    """A new version that becomes current is a deployment, any other a rollback."""
    known = before.models.get(now.name)
    old = known.current if known else None
    if now.current is None or now.current == old:
        return []
    subject, version = f"model {now.name}", before.versions.get(ModelId(now.name, now.current))
    if old is None:
        return [NewEvent("deployment", subject, f"version {now.current} is current", now.current)]
    if version is not None and version.is_new:
        text = f"version {now.current} is current, in place of version {old}"
        return [NewEvent("deployment", subject, text, now.current)]
    text = f"the model is rolled back to version {now.current} from version {old}"
    return [NewEvent("rollback", subject, text, now.current, "warning")]


def _of_application(before: ApplicationRecord | None, now: ApplicationRecord, why: str) -> list[NewEvent]:
    subject = f"application {now.name}"
    if before is None:
        models = ", ".join(link_names(now.links)) or "no model"
        return [
            NewEvent("application", subject, f"the application is created: {models}, policy {now.selection.policy}")
        ]
    changed = [
        *_differences(before, now, leave_out=("links", "selection", "newcomers", "ramps", "ended_ramps")),
        *_differences(before.selection, now.selection, leave_out=("code",)),
    ]
    if before.links != now.links:
        changed.append(f"links {', '.join(link_names(now.links)) or 'no model'}")
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
    """Which fields differ, with their values if these are short."""
    return [
        f"{name} {_shown(old, new)}".rstrip()
        for name in type(now).__struct_fields__
        if name not in leave_out and (old := getattr(before, name)) != (new := getattr(now, name))
    ]


def _shown(old: Any, new: Any) -> str:
    text = f"{new} in place of {old}"
    return text if len(text) <= 2 * _SHOWN and text.isprintable() else ""
