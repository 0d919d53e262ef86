"""The operations on applications."""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from clipper.api.schemas import Application, Contexts, LearnedPolicy, LinkChange
from clipper.api.server.operations import CALLER
from clipper.control.statistics import ApplicationStatistics
from clipper.errors import Conflict, InvalidArgument, NotFound, Unavailable
from clipper.learning.mathematics.parameters import check_number
from clipper.settings.application import MAX_COST, ApplicationChange, Link, NewApplication, Selection
from clipper.settings.fields import check_range, check_ranges, given, shared
from clipper.settings.pipeline import read_graph
from clipper.supervisor.operations.parts import OfParts
from clipper.supervisor.operations.pipelines import check_is_no_step, check_pipeline, input_type_of
from clipper.supervisor.operations.selections import (
    budgets_of,
    changed_selection,
    check_features,
    check_has_costs,
    check_log,
    names_code,
    new_selection,
)
from clipper.supervisor.operations.views import application_view, policy_view
from clipper.supervisor.reconciler.servable import check_json
from clipper.supervisor.registry.records import ApplicationRecord
from clipper.supervisor.registry.store import Delete, ForgetLater, Put
from clipper.supervisor.rollout import newcomers, rules, wanted
from clipper.values.records import parse_type
from clipper.values.types import MAX_CONTEXT_LENGTH, DType, InputType, ModelId, check_name

# A query may ask all of an application's links.
MAX_LINKS = 64
# The input type, for checks, of an application whose models do not exist yet: any policy takes it.
UNKNOWN_TYPE = InputType(DType.FLOAT64, (1,))
# With texts of the maximal length, these have some MB.
MAX_LISTED_CONTEXTS = 10_000


class ApplicationOperations(OfParts):
    """The operations on applications. Each change returns once every worker serves it."""

    async def list_applications(self) -> list[Application]:
        return [
            application_view(record, self._ramps, recent=self._recent.answers(name))
            for name, record in sorted(self._catalog.applications.items())
        ]

    async def get_application(self, name: str) -> Application:
        selection = self._catalog.application(name).selection
        has_more = selection.policy == "best_arm" or bool(budgets_of(selection))
        problem = _problem(await self._asked(name))
        description = await self._workers.describe_policy(name, None) if has_more else None
        if problem is None and description is not None:
            problem = description.problem
        recent = self._recent.answers(name)
        return application_view(self._catalog.application(name), self._ramps, problem, description, recent)

    async def describe_policy(self, name: str, context: str | None) -> LearnedPolicy:
        self._catalog.application(name)
        rules.check_context(context)
        description = await self._workers.describe_policy(name, context)
        if description is None:
            raise Unavailable(f"no query worker described what application {name!r} has learned: see clipper status")
        asked = await self._asked(name)
        problem = description.problem or _problem(asked)
        return policy_view(self._catalog.application(name).selection, context, description, problem, asked)

    async def list_contexts(self, name: str, limit: int) -> Contexts:
        check_range("limit", limit, 1, MAX_LISTED_CONTEXTS)
        count, contexts = await self._parts.store.contexts(self._catalog.application(name).state_id, limit)
        return Contexts(count, tuple(contexts))

    async def delete_context(self, name: str, context: str) -> None:
        state_id = self._catalog.application(name).state_id
        # The empty context holds the state that all contexts share.
        if not context or not await self._parts.store.forget_context(state_id, context):
            raise NotFound(f"application {name!r} has learned nothing in context {context[:MAX_CONTEXT_LENGTH]!r}")

    async def create_application(self, new: NewApplication) -> Application:
        self._check_is_new(new.name)
        check_ranges(new)
        record = await self._checked(_record(new, self._input_type(new)))
        # Checked again: the earlier check may have taken a while.
        self._check_is_new(new.name)
        return await self._store(replace(record, id=self._catalog.new_application_id(new.name)))

    async def check_application(self, new: NewApplication) -> None:
        check_name("application", new.name, self._catalog.applications)
        check_ranges(new)
        models, versions = self._catalog.models, self._catalog.versions
        there = [link for link in new.links if link.model in models]
        there = [link for link in there if link.version is None or ModelId(link.model, link.version) in versions]
        if len(there) < len(new.links):  # the outputs of the others may have any fields
            new = replace(new, links=tuple(there), redact=None)
        if new.code is not None and not self._artifacts.renew(new.code):
            # The code is tried once it has been uploaded.
            new = replace(new, policy=Selection().policy, loss=Selection().loss, code=None)
        try:
            input_type = self._input_type(new)
        except (Conflict, InvalidArgument):
            if new.input_type is not None:
                raise
            # The first link's model, or a step's application, will decide it.
            if new.steps:
                read_graph(new.name, new.steps, new.output)
            new, input_type = replace(new, links=(), steps={}, output=None, redact=None), str(UNKNOWN_TYPE)
        checked = await self._checked(_record(new, input_type), may_lack=True)
        self._reconciler.servable.check(checked, self._catalog.applications)

    async def _checked(self, record: ApplicationRecord, *, may_lack: bool = False) -> ApplicationRecord:
        self._check_links(record)
        check_pipeline(record, self._catalog, may_lack=may_lack)
        return await self._checked_selection(record)

    async def change_application(self, name: str, change: ApplicationChange) -> Application:
        before = self._catalog.application(name)
        record = self._still_ramped(_changed(before, change))
        if (record.selection, record.code) != (before.selection, before.code):
            record = await self._checked_selection(record, before.selection)
            if self._catalog.applications.get(name) is not before:
                raise Conflict(f"application {name!r} was changed meanwhile: look at it and try again")
        changed = await self._store(record)
        self._remove_unused(before.code)
        return changed

    async def delete_application(self, name: str) -> None:
        record = self._catalog.application(name)
        check_is_no_step(name, self._catalog)
        self._catalog.commit(Delete(ApplicationRecord, name), ForgetLater(record.state_id), by=CALLER.get())
        self._recent.applications.forget(name)
        try:
            await self._reach_workers(f"application {name!r} is deleted")
        finally:
            # Even if a worker does not know of it yet: that worker has the code loaded, and what it still learns is
            # awaited.
            self._parts.forgetter.wake()
            self._remove_unused(record.code)

    async def link(self, application: str, model: str, change: LinkChange) -> Application:
        """Link a model, in place of a link of that name. ``MODEL:VERSION`` is a link beside others of the model."""
        record = self._catalog.application(application)
        name, _, version = model.partition(":")
        if version and change.version not in (None, version):
            raise InvalidArgument(f"link {model!r} cannot be to version {change.version!r}: give one of the two")
        new = Link(name, version or change.version, change.shadow, change.cost)
        replaced = _linked(record, model)
        if replaced is None:
            links = (*record.links, new)
        else:
            links = tuple(new if link is replaced else link for link in record.links)
        self._check_links(replace(record, links=links))
        linked = newcomers.after_link(record, replace(record, links=links), new, replaced, self._catalog.current)
        return await self._store(linked)

    async def unlink(self, application: str, model: str) -> Application:
        """Remove a link. ``MODEL:VERSION`` is one to the current version, too, as lists show it."""
        record = self._catalog.application(application)
        name, _, version = model.partition(":")
        removed = _linked(record, model)
        if removed is None and version and version == self._catalog.current(name):
            removed = next((link for link in record.links if (link.model, link.version) == (name, None)), None)
        if removed is None:
            raise NotFound(f"application {application!r} does not link model {model!r}")
        return await self._store(
            self._still_ramped(replace(record, links=tuple(link for link in record.links if link is not removed)))
        )

    def _still_ramped(self, record: ApplicationRecord) -> ApplicationRecord:
        return newcomers.after_other_change(record, self._catalog.current, self._catalog.versions.__contains__)

    async def _store(self, record: ApplicationRecord) -> Application:
        self._check_links(record)
        check_pipeline(record, self._catalog)
        self._reconciler.servable.check(record, self._catalog.applications)
        self._catalog.commit(Put(record), by=CALLER.get())
        await self._reach_workers(f"application {record.name!r} is stored")
        return application_view(record, self._ramps)

    def _check_is_new(self, name: str) -> None:
        check_name("application", name, self._catalog.applications)
        if name in self._catalog.applications:
            raise Conflict(f"application {name!r} exists already: change it, or delete it first")

    def _check_links(self, record: ApplicationRecord) -> None:
        targets = [(link.model, link.version) for link in record.links]
        if len(set(targets)) != len(targets) or len(targets) > MAX_LINKS:
            shown = [f"{model}:{version}" if version else model for model, version in targets]
            raise InvalidArgument(
                f"links {shown!r:.200} are not valid: expected at most {MAX_LINKS}, each of another model or version"
            )
        for link in record.links:
            if isinstance(link.cost, float | int):
                check_number(f"cost of {link.model}", link.cost, 0, MAX_COST)
            model = self._catalog.model(link.model)
            version = link.version or model.current
            if version is not None:
                wanted.check_fits(record, self._catalog.version(link.model, version))

    async def _checked_selection(self, record: ApplicationRecord, before: Selection | None = None) -> ApplicationRecord:
        """Return the checked record, with ``code`` only if its policy or loss uses it."""
        input_type = parse_type(record.input_type)
        check_features(record.selection, input_type)
        check_log(record.selection, before, input_type, self._output_types(record))
        check_has_costs(record.selection, record.links)
        check_json("the policy's parameters", record.selection.parameters)
        check_json("the loss's parameters", record.selection.loss_parameters)
        if not names_code(record.selection):
            record = replace(record, code=None)
        if record.code is None:
            await self._parts.selections.check(record.selection)
            return record
        self._artifacts.check_inside(record.code, "code")
        await self._parts.selections.check(replace(record.selection, code=self._artifacts.code_folder(record.code)))
        # Checked again: meanwhile the last user of the artifact may have been deleted, and the artifact with it.
        self._artifacts.check_inside(record.code, "code")
        return record

    def _output_types(self, record: ApplicationRecord) -> list[str | None]:
        """Return the type of each linked model's outputs; None for a type that is not known."""
        known = self._catalog
        found = [(link.model, link.version or known.current(link.model)) for link in record.links]
        types = [None if version is None else known.version(model, version).output_type for model, version in found]
        return [None] if record.steps else types

    def _remove_unused(self, artifact: str | None) -> None:
        if artifact is not None and not self._catalog.uses_artifact(artifact):
            self._artifacts.remove(artifact)

    async def _asked(self, name: str) -> list[ApplicationStatistics]:
        """Return an application's statistics from each worker that answers."""
        return [
            application
            for worker in await self._workers.statistics([name], ())
            for application in worker.applications
            if application.name == name
        ]

    def _input_type(self, new: NewApplication) -> str:
        if new.input_type is not None:
            return str(rules.checked_type(new.input_type))
        if new.steps:
            known = input_type_of(new, self._catalog)
            if known is None:
                raise InvalidArgument(
                    "input_type: a pipeline needs one, e.g. string, unless a step takes the whole query as its input"
                )
            return known
        if not new.links:
            raise InvalidArgument("an application that links no model yet needs its input_type, e.g. float64[784]")
        link = new.links[0]
        version = link.version or self._catalog.model(link.model).current
        known = self._catalog.version(link.model, version).input_type if version else None
        if known is None:
            raise Conflict(
                f"model {link.model!r} has not come up yet, so its input type is not known: "
                "wait until it is ready, or declare the application's input_type"
            )
        return known


def _record(new: NewApplication, input_type: str) -> ApplicationRecord:
    values = shared(new, ApplicationRecord)
    values |= {"input_type": input_type, "default_output": _default_text(new.default_output)}
    return ApplicationRecord(**values, selection=new_selection(new))


def _problem(asked: Sequence[ApplicationStatistics]) -> str | None:
    """Return the last problem of an application's policy in any worker."""
    selections = (application.selection for application in asked)
    return next((one.last_policy_error for one in selections if one is not None and one.last_policy_error), None)


def _linked(record: ApplicationRecord, name: str) -> Link | None:
    """Return the link that ``MODEL:VERSION`` names; for ``MODEL``, its only link or the link to the current version."""
    model, _, version = name.partition(":")
    links = [link for link in record.links if link.model == model]
    if version:
        return next((link for link in links if link.version == version), None)
    if len(links) == 1:
        return links[0]
    return next((link for link in links if link.version is None), None)


def _changed(record: ApplicationRecord, change: ApplicationChange) -> ApplicationRecord:
    check_ranges(change)
    changed = {name: value for name, value in given(change).items() if name in ApplicationRecord.__struct_fields__}
    if "default_output" in changed:
        changed["default_output"] = _default_text(changed["default_output"])
    return replace(record, selection=changed_selection(record.selection, change), **changed)


def _default_text(default: Any) -> str | None:
    if default is UNSET:
        return None
    check_json("default_output", default)
    return msgspec.json.encode(default).decode()
