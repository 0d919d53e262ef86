"""Finds the versions that are new to an application after a change of its links and models. Records in and out.

A newcomer comes beside, or replaces, a version that the application asks already: by a link that is added or changed,
or by the deployment of a model that a link follows; not by a rollback. If the policy learns and there is a ramp, the
newcomer is *ramped*: it gets a share of the queries. Otherwise it is *watched*: it gets the queries of its link at
once, and is stopped only if it fails more than the version before.
"""

from collections.abc import Callable, Iterable, Mapping

from msgspec.structs import replace

from clipper.control.descriptions import EndedRamp
from clipper.control.snapshot import NO_OUTCOME, Newcomer, RampOutcome
from clipper.learning.policies.by_name import POLICIES
from clipper.settings.application import Link, Selection
from clipper.supervisor.registry.records import ApplicationRecord, ModelRecord, VersionRecord
from clipper.values.types import ModelId

# Finds the current version of a model; None if it has none.
Current = Callable[[str], str | None]


def is_ramped(selection: Selection) -> bool:
    """Whether new versions are ramped: only a policy that learns has feedback."""
    return selection.ramp is not None and _learns(selection)


def is_watched(selection: Selection) -> bool:
    """Whether new versions are watched: if they are not ramped, and a guardrail is wanted."""
    return selection.max_loss_increase is not None and not is_ramped(selection)


def after_link(
    before: ApplicationRecord, after: ApplicationRecord, new: Link, replaced: Link | None, current: Current
) -> ApplicationRecord:
    """Return the record after ``new`` was linked: a stopped version is tried again."""
    version = new.version or current(new.model)
    was = None if replaced is None or replaced.shadow else replaced.version or current(replaced.model)
    known = _newcomer(before, new.model, version)
    if version is not None and version == was and not new.shadow and (known is None or known.stopped is None):
        return after
    asked = None if was is None else _incumbent(before, new.model, was)
    after = _without(after, lambda one: one.model == new.model and (one.version in (was, version) or _is_over(one)))
    return after if new.shadow else _beginning(after, new, version, asked, current)


def after_promotion(
    record: ApplicationRecord, model: str, version: str, was: str | None, *, is_new: bool, current: Current
) -> ApplicationRecord:
    """Return the record after ``version`` became current instead of ``was``, deployed (``is_new``) or rolled back to.

    A ramp under way is overtaken; the version that it was compared with goes on.
    """
    link = next((one for one in record.links if (one.model, one.version) == (model, None) and not one.shadow), None)
    if link is None:
        return record
    asked = None if was is None else _incumbent(record, model, was)
    record = _without(record, lambda one: one.model == model and (one.version in (was, version) or _is_over(one)))
    return _beginning(record, link, version, asked, current, promoted=True) if is_new else record


def after_other_change(
    record: ApplicationRecord, current: Current, exists: Callable[[ModelId], bool]
) -> ApplicationRecord:
    """Drop newcomers without a link, newcomers whose ``before`` is gone, and newcomers that are no longer ramped."""

    def is_over(one: Newcomer) -> bool:
        if not exists(ModelId(one.model, one.version)) or one.model not in linked:
            return True
        if _is_over(one):
            return False
        if one.stopped is None and not is_ramped(record.selection):
            return True
        if (one.model, one.version) not in asked:
            return True
        return not others if one.before is None else not exists(ModelId(one.model, one.before))

    def goes_on(one: Newcomer) -> bool:
        is_compared = one.before is None or exists(ModelId(one.model, one.before))
        is_asked = (one.model, one.version) in asked
        return is_asked and is_compared and exists(ModelId(one.model, one.version)) and is_watched(record.selection)

    new = {(one.model, one.version) for one in record.newcomers}
    asked = [(link.model, link.version or current(link.model)) for link in record.links if not link.shadow]
    linked = {model for model, _ in asked}
    others = [target for target in asked if target[1] is not None and target not in new]
    return _without(record, lambda one: not goes_on(one) if one in record.watched else is_over(one))


def through(record: ApplicationRecord, newcomer: Newcomer, ended: EndedRamp) -> ApplicationRecord:
    """Return the record after a newcomer was let through: it is a link like others, and ``ended`` is kept for show."""
    linked = {link.model for link in record.links}
    kept = [one for one in record.ended_ramps if one.model in linked and one.model != ended.model]
    return replace(_without(record, lambda one: one == newcomer), ended_ramps=(*kept, ended))


def unwatched(record: ApplicationRecord, newcomer: Newcomer) -> ApplicationRecord:
    return _without(record, lambda one: one == newcomer)


def ended_ramps(
    record: ApplicationRecord, versions: Mapping[ModelId, VersionRecord], current: Current
) -> tuple[EndedRamp, ...]:
    answering = compared_with([record])
    for link in record.links:
        version = link.version or current(link.model)
        if version is not None and not link.shadow:
            answering.add(ModelId(link.model, version))
    answering -= {ModelId(one.model, one.version) for one in record.newcomers}

    def is_of_now(one: EndedRamp) -> bool:
        version = versions.get(id_ := ModelId(one.model, one.version))
        # A version that was deleted and deployed again under its name is another version.
        return id_ in answering and version is not None and version.created_at <= one.ended_at

    return tuple(filter(is_of_now, record.ended_ramps))


def stopped(
    record: ApplicationRecord, newcomer: Newcomer, why: str, outcome: RampOutcome = NO_OUTCOME
) -> ApplicationRecord:
    """Return the record after a newcomer was stopped: it gets no more queries.

    A link that was changed to it goes back to the version before. If it was promoted, the caller has to roll its model
    back.
    """

    def back(link: Link) -> Link:
        leads = link.version == newcomer.version or (link.version is None and not newcomer.promoted)
        is_its = link.model == newcomer.model and not link.shadow and leads
        return replace(link, version=newcomer.before) if is_its and newcomer.before is not None else link

    over = replace(newcomer, stopped=why, outcome=outcome)
    record = replace(record, links=tuple(map(back, record.links)))
    if newcomer in record.watched:
        record = _without(record, lambda one: one == newcomer)
        return replace(record, newcomers=(*record.newcomers, over))
    newcomers = tuple(over if one == newcomer else one for one in record.newcomers)
    return replace(record, newcomers=newcomers)


def compared_with(records: Iterable[ApplicationRecord]) -> set[ModelId]:
    """Return the versions that go on answering until their successors are let through."""
    return {
        ModelId(one.model, one.before)
        for record in records
        for one in (*record.newcomers, *record.watched)
        if one.before is not None and one.stopped is None
    }


def proven(records: Iterable[ApplicationRecord], model: ModelRecord) -> str | None:
    """Return the version to which a rollback from the next version returns.

    It is the current version, unless an application still ramps it or has stopped it; then it is the version before.
    """
    for record in records:
        newcomer = _newcomer(record, model.name, model.current)
        if newcomer is not None and newcomer.promoted:
            return newcomer.before or model.previous
    return model.current


def _beginning(
    record: ApplicationRecord,
    link: Link,
    version: str | None,
    asked: str | None,
    current: Current,
    *,
    promoted: bool = False,
) -> ApplicationRecord:
    """Add ``version`` of ``link`` as a newcomer, if it can be compared, such as with ``asked``, the version before."""
    others = [
        ModelId(other.model, at)
        for other in record.links
        if other != link and not other.shadow and (at := other.version or current(other.model)) is not None
    ]
    if version is None or asked == version or ModelId(link.model, version) in others:
        return record
    if asked is None and not others:
        return record
    newcomer = Newcomer(record.ramps + 1, link.model, version, asked, promoted)
    if is_ramped(record.selection):
        return replace(record, newcomers=(*record.newcomers, newcomer), ramps=newcomer.ramp)
    # ``single`` never asks an added link. A policy that learns asks it by its merits, not by chance.
    is_compared = asked is not None or not (record.selection.policy == "single" or _learns(record.selection))
    if is_watched(record.selection) and is_compared:
        return replace(record, watched=(*record.watched, newcomer), ramps=newcomer.ramp)
    return record


def _learns(selection: Selection) -> bool:
    """Whether the policy learns from feedback. A user's own policy may; equal votes do not."""
    if selection.policy == "ensemble" and selection.parameters.get("weighting") == "equal":
        return False
    policy = POLICIES.get(selection.policy)
    return policy is None or policy.learns


def _incumbent(record: ApplicationRecord, model: str, version: str) -> str | None:
    """Return the version that gets most queries of a link to ``version``; None if a newcomer gets all of them."""
    known = _newcomer(record, model, version)
    return version if known is None else known.before


def _newcomer(record: ApplicationRecord, model: str, version: str | None) -> Newcomer | None:
    return next((one for one in record.newcomers if (one.model, one.version) == (model, version)), None)


def _is_over(one: Newcomer) -> bool:
    """Whether a newcomer's link leads back to the version before, and it is kept only to show that it was stopped."""
    return one.stopped is not None and one.before is not None


def _without(record: ApplicationRecord, is_gone: Callable[[Newcomer], bool]) -> ApplicationRecord:
    left = tuple(one for one in record.newcomers if not is_gone(one))
    watched = tuple(one for one in record.watched if not is_gone(one))
    if (left, watched) == (record.newcomers, record.watched):
        return record
    return replace(record, newcomers=left, watched=watched)
