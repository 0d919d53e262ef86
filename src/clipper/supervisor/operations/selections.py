"""Makes an application's selection from an operator's request, and checks it."""

from pathlib import Path

from msgspec import UNSET
from msgspec.structs import replace

from clipper.base.processes.folder import ProcessFolder
from clipper.base.run_as import RunAs
from clipper.errors import InvalidArgument
from clipper.learning.own_code.trial import Trials
from clipper.learning.policies.by_name import POLICIES, default_half_life, make_loss, make_policy, runs_own_code
from clipper.settings.application import ApplicationChange, Configured, NewApplication, Selection, SelectionSettings
from clipper.settings.fields import check_ranges, given, shared
from clipper.values.inputs.record_features import RecordFeatures
from clipper.values.records import RecordType, ValueType
from clipper.values.types import MAX_FEATURES

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
        """Make a checker.

        ``processes`` are the workers', so that code that can be made here can be made there. ``scratch`` and ``run_as``
        are those of containers.
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


def check_budget(selection: Selection) -> None:
    """Raise InvalidArgument if there is a budget that the policy cannot keep, or that contradicts another setting."""
    given = [name for name in ("max_cost_per_query", "min_quality") if getattr(selection, name) is not None]
    if not given:
        return
    able = [name for name, kind in POLICIES.items() if kind.has_budget]
    if selection.policy not in able:
        raise InvalidArgument(
            f"{given[0]} does not go with policy {selection.policy}: expected a policy that asks one model for each "
            f"query and may choose it by its price: {', '.join(able)}"
        )
    if len(given) > 1:
        raise InvalidArgument(
            "max_cost_per_query and min_quality are both set: expected one of them, and none for the other"
        )
    if selection.cost_weight:
        raise InvalidArgument(
            f"{given[0]} is set, and so is cost_weight {selection.cost_weight:g}: expected a cost_weight of 0, since a "
            "budget learns what a cost is worth"
        )


def _configured(given: str | Configured) -> Configured:
    return Configured(given) if isinstance(given, str) else given


def check_features(selection: Selection, input_type: ValueType) -> None:
    """Raise InvalidArgument if the policy needs features that queries do not bring, or that inputs cannot be."""
    if selection.features is None and _goes_by_features(selection.policy):
        raise InvalidArgument(
            f"policy {selection.policy} needs features: say how many each query brings, features N, or that its "
            "input is them, features input"
        )
    if not isinstance(selection.features, str):
        return
    if isinstance(input_type, RecordType):
        RecordFeatures(input_type, selection.features)
    elif selection.features != "input":
        raise InvalidArgument(
            f"features {selection.features!r:.100} are names of fields, and inputs of {input_type} have none: expected "
            "a number, input or none"
        )
    elif not 1 <= input_type.elements <= MAX_FEATURES:
        raise InvalidArgument(
            f"inputs of {input_type} cannot be features: expected numbers of a shape that fixes how many, at most "
            f"{MAX_FEATURES}, such as float64[8]; send others beside the input, features N"
        )
