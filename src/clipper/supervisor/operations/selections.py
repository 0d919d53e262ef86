"""Makes an application's selection from an operator's request, and checks it."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path

from msgspec import UNSET
from msgspec.structs import replace

from clipper.base.processes.folder import ProcessFolder
from clipper.base.run_as import RunAs
from clipper.errors import InvalidArgument
from clipper.learning.own_code.trial import Trials
from clipper.learning.policies.by_name import POLICIES, default_half_life, make_loss, make_policy, runs_own_code
from clipper.settings.application import (
    ApplicationChange,
    Configured,
    Link,
    NewApplication,
    Selection,
    SelectionSettings,
)
from clipper.settings.fields import check_ranges, given, shared
from clipper.values.inputs.record_features import RecordFeatures, field_names
from clipper.values.records import RecordType, ValueType, parse_type
from clipper.values.types import MAX_FEATURES, DType

# The name of a check's process, before its number.
_CHECKS = "selection-check"


def new_selection(new: NewApplication) -> Selection:
    policy, loss = _configured(new.policy), _configured(new.loss)
    return Selection(
        policy=policy.name,
        parameters=policy.parameters,
        loss=loss.name,
        loss_parameters=loss.parameters,
        half_life=default_half_life(policy.name) if new.half_life is UNSET else new.half_life,
        **shared(new, SelectionSettings),
    )


def changed_selection(selection: Selection, change: ApplicationChange) -> Selection:
    changed = given(change)
    if "policy" in changed:
        policy = _configured(changed.pop("policy"))
        if _goes_by_features(selection.policy) and policy.name in POLICIES and not _goes_by_features(policy.name):
            # Features belong to the previous policy: queries without them would be refused, although nobody reads them.
            selection = replace(selection, features=None)
        if selection.half_life == default_half_life(selection.policy):  # nobody has set another half-life
            selection = replace(selection, half_life=default_half_life(policy.name))
        selection = replace(selection, policy=policy.name, parameters=policy.parameters)
    if "loss" in changed:
        loss = _configured(changed.pop("loss"))
        selection = replace(selection, loss=loss.name, loss_parameters=loss.parameters)
    # Not its code: a change names an artifact, and a selection has the folder of its modules.
    own = {*SelectionSettings.__struct_fields__, "half_life"}
    return replace(selection, **{name: value for name, value in changed.items() if name in own})


def _goes_by_features(policy: str) -> bool:
    """Whether the policy is one of Clipper's own that needs features."""
    return policy in POLICIES and POLICIES[policy].needs_features


def names_code(selection: Selection) -> bool:
    """Whether the policy or the loss is the user's own, ``module:attribute``."""
    return ":" in selection.policy or ":" in selection.loss


class SelectionChecker:
    """Checks selections. Code that is not Clipper's own is tried in a process that ends with the check."""

    def __init__(self, processes: ProcessFolder, scratch: Path, run_as: RunAs | None = None) -> None:
        """Make a checker. ``processes`` are the workers', so that code that can be made here can be made there.
        ``scratch`` and ``run_as`` are those of containers.
        """
        self._trials = Trials(processes.environment(_CHECKS), scratch, _CHECKS, run_as)

    async def check(self, selection: Selection) -> None:
        """Raise InvalidArgument if a selection is not valid, Unavailable if the process to try it cannot be started."""
        check_ranges(selection)
        check_budget(selection)
        if not runs_own_code(selection.policy, selection.loss):
            make_policy(selection.policy, selection.parameters)
            make_loss(selection.loss, selection.loss_parameters)
            return
        verdict = await self._trials.verdict(selection)
        if verdict.problem is not None:
            raise InvalidArgument(verdict.problem)


def budgets_of(selection: Selection) -> list[str]:
    """Return the names of the budgets that are set."""
    return [name for name in ("max_cost_per_query", "min_quality") if getattr(selection, name) is not None]


def check_budget(selection: Selection) -> None:
    """Raise InvalidArgument if there is a budget that the policy cannot keep, or that contradicts another setting."""
    given = budgets_of(selection)
    if not given:
        return
    able = [name for name, kind in POLICIES.items() if kind.has_budget]
    if selection.policy not in able:
        raise InvalidArgument(
            f"{given[0]} does not go with policy {selection.policy}: expected a policy that asks one model for each "
            f"query and may choose it by its price: {', '.join(able)}"
        )
    if len(given) > 1:
        raise InvalidArgument("max_cost_per_query and min_quality are both set: expected one of them alone")
    if selection.cost_weight:
        raise InvalidArgument(
            f"{given[0]} is set, and so is cost_weight {selection.cost_weight:g}: expected a cost_weight of 0, since a "
            "budget learns what a cost is worth"
        )


def check_has_costs(selection: Selection, links: Sequence[Link]) -> None:
    """Raise InvalidArgument if a budget has nothing to weigh: models are linked, and none that answers has a cost."""
    budgets = budgets_of(selection)
    answering = [link for link in links if not link.shadow]
    if budgets and answering and not any(link.cost for link in answering):
        raise InvalidArgument(
            f"{budgets[0]} weighs the costs of models, but no linked model has one: expected a cost for each, as a "
            f"number or auto, e.g. --cost {answering[0].model}=auto"
        )


def _configured(given: str | Configured) -> Configured:
    return Configured(given) if isinstance(given, str) else given


def check_features(selection: Selection, input_type: ValueType) -> None:
    """Raise InvalidArgument if the policy needs features that queries do not bring, or that inputs cannot be."""
    if selection.features is None and _goes_by_features(selection.policy):
        raise InvalidArgument(
            f"policy {selection.policy} needs features: expected how many numbers each query brings, or input if the "
            "input itself is the features"
        )
    if not isinstance(selection.features, str):
        return
    if isinstance(input_type, RecordType):
        RecordFeatures(input_type, selection.features)
    elif selection.features != "input":
        raise InvalidArgument(
            f"features {selection.features!r:.100} are names of fields, but inputs of {input_type} have none: expected "
            "a number, input or none"
        )
    elif not 1 <= input_type.elements <= MAX_FEATURES:
        raise InvalidArgument(
            f"inputs of {input_type} cannot be features: expected 1 to {MAX_FEATURES} numbers, always as many, such as "
            "float64[8]; or set features to how many numbers each query brings beside its input"
        )


def check_log(
    selection: Selection, before: Selection | None, input_type: ValueType, output_types: Iterable[str | None]
) -> None:
    """Raise InvalidArgument if inputs of no query would be kept, or if a redacted field is nowhere: it is misspelt.

    Args:
        before: the selection that is changed; None for a new application.
        output_types: those of the linked models; None for a type that is not known.
    """
    if selection.log_inputs != "off" and not selection.log_decisions:
        raise InvalidArgument(
            f"log_inputs is {selection.log_inputs}, but no query is logged: expected log_decisions (--log-decisions) "
            "above 0, or log_inputs off"
        )
    if selection.redact is None or (before is not None and before.redact == selection.redact):
        return
    names = field_names(selection.redact)
    known = [*input_type.names] if isinstance(input_type, RecordType) else []
    are_known = True
    for output_type in output_types:
        outputs = None if output_type is None else parse_type(output_type)
        parts = [field.type for field in outputs.fields] if isinstance(outputs, RecordType) else [outputs]
        # Bytes may be any JSON, with objects in it.
        if any(part is not None and part.dtype is DType.BYTES for part in parts):
            return
        are_known = are_known and outputs is not None
        known += outputs.names if isinstance(outputs, RecordType) else ()
    unknown = [name for name in names if name not in known]
    if not are_known:  # a name that is almost that of a field is misspelt all the same
        unknown = [name for name in unknown if get_close_matches(name, known)]
    if unknown:
        raise InvalidArgument(
            f"redact names {unknown[0]!r:.100}, which is no field of the input or of a linked model's output: expected "
            f"some of {', '.join(known)[:200] or 'their fields, and they have none'}"
        )
