"""How an application is to select among its models: from what an operator asks for, checked."""

from pathlib import Path

from msgspec import UNSET
from msgspec.structs import replace

from clipper.control.snapshot import Selection
from clipper.errors import InvalidArgument
from clipper.management.schemas import ApplicationChange, Configured, NewApplication
from clipper.processes.folder import ProcessFolder
from clipper.run_as import RunAs
from clipper.selection.learning.parameters import check_number
from clipper.selection.policies.query_view import MAX_FEATURES
from clipper.selection.policies.registry import POLICIES, default_half_life, make_loss, make_policy, runs_own_code
from clipper.selection.trial import Trials
from clipper.supervisor.operations import rules
from clipper.types import InputType

# Feedback on a query that was longer ago would be on a model that is no longer there. Ids of feedback are kept as long.
MAX_FEEDBACK_TTL_S = 7 * 24 * 3600.0
# More feedback than comes in years; who wants more wants no half-life.
MAX_OBSERVATIONS = 10**9
# With more, it would be the rest that is new.
MAX_RAMP = 0.5
# What the processes of checks are called, with a number behind.
_CHECKS = "selection-check"


def new_selection(new: NewApplication) -> Selection:
    policy, loss = _configured(new.policy), _configured(new.loss)
    return Selection(
        policy=policy.name,
        parameters=policy.parameters,
        loss=loss.name,
        loss_parameters=loss.parameters,
        half_life=default_half_life(policy.name) if new.half_life is UNSET else new.half_life,
        prior_weight=new.prior_weight,
        inherit=new.inherit,
        ramp=new.ramp,
        max_loss_increase=new.max_loss_increase,
        wait=new.wait,
        confidence_threshold=new.confidence_threshold,
        confidence_from=new.confidence_from,
        calibrate=new.calibrate,
        feedback_ttl_s=new.feedback_ttl_s,
        log_decisions=new.log_decisions,
        features=new.features,
        cost_weight=new.cost_weight,
    )


def changed_selection(selection: Selection, change: ApplicationChange) -> Selection:
    if change.policy is not UNSET:
        policy = _configured(change.policy)
        if selection.half_life == default_half_life(selection.policy):  # nobody has set another
            selection = replace(selection, half_life=default_half_life(policy.name))
        selection = replace(selection, policy=policy.name, parameters=policy.parameters)
    if change.loss is not UNSET:
        loss = _configured(change.loss)
        selection = replace(selection, loss=loss.name, loss_parameters=loss.parameters)
    others = {
        "half_life": change.half_life,
        "prior_weight": change.prior_weight,
        "inherit": change.inherit,
        "ramp": change.ramp,
        "max_loss_increase": change.max_loss_increase,
        "wait": change.wait,
        "confidence_threshold": change.confidence_threshold,
        "confidence_from": change.confidence_from,
        "calibrate": change.calibrate,
        "feedback_ttl_s": change.feedback_ttl_s,
        "log_decisions": change.log_decisions,
        "features": change.features,
        "cost_weight": change.cost_weight,
    }
    return replace(selection, **{name: value for name, value in others.items() if value is not UNSET})


def names_code(selection: Selection) -> bool:
    """Whether its policy or loss is the user's own, ``module:attribute``."""
    return ":" in selection.policy or ":" in selection.loss


class SelectionChecker:
    """Checks selections. Code that is not Clipper's own is tried in a process that ends with the check."""

    def __init__(self, processes: ProcessFolder, scratch: Path, run_as: RunAs | None = None) -> None:
        """``processes``: of the workers, so that what is made here can be made there; ``scratch``: of containers.

        ``run_as``: the user that containers run as, and so does this.
        """
        self._trials = Trials(processes.environment(_CHECKS), scratch, _CHECKS, run_as)

    async def check(self, selection: Selection) -> None:
        """
        Raises:
            InvalidArgument: a value is outside its range, or the policy or loss cannot be made.
            Unavailable: the process for that cannot be started.
        """
        check_numbers(selection)
        if not runs_own_code(selection.policy, selection.loss):
            make_policy(selection.policy, selection.parameters)
            make_loss(selection.loss, selection.loss_parameters)
            return
        verdict = await self._trials.verdict(selection)
        if verdict.problem is not None:
            raise InvalidArgument(verdict.problem)


def _configured(given: str | Configured) -> Configured:
    return Configured(given) if isinstance(given, str) else given


def check_numbers(selection: Selection) -> None:
    """
    Raises:
        InvalidArgument: one is outside its range.
    """
    if selection.half_life is not None:
        check_number("half_life", selection.half_life, 1, MAX_OBSERVATIONS)
    check_number("prior_weight", selection.prior_weight, 0, MAX_OBSERVATIONS)
    check_number("inherit", selection.inherit, 0, 1)
    if selection.ramp is not None:
        check_number("ramp", selection.ramp, 0, MAX_RAMP, above=True)
    if selection.max_loss_increase is not None:
        check_number("max_loss_increase", selection.max_loss_increase, 0, 1)
    if selection.confidence_threshold is not None:
        check_number("confidence_threshold", selection.confidence_threshold, 0, 1)
    check_number("feedback_ttl_s", selection.feedback_ttl_s, 0, MAX_FEEDBACK_TTL_S)
    check_number("log_decisions", selection.log_decisions, 0, 1)
    check_number("cost_weight", selection.cost_weight, 0, rules.MAX_COST)
    if isinstance(selection.features, int):
        check_number("features", selection.features, 1, MAX_FEATURES)


def check_features(selection: Selection, input_type: InputType) -> None:
    """
    Raises:
        InvalidArgument: the policy goes by features that queries do not bring, or their inputs cannot be them.
    """
    if selection.features is None and selection.policy in POLICIES and POLICIES[selection.policy].needs_features:
        raise InvalidArgument(
            f"policy {selection.policy} goes by features: say how many each query brings, features N, or that its "
            "input is them, features input"
        )
    if selection.features != "input":
        return
    size_bytes = input_type.row_bytes
    count = None if size_bytes is None else size_bytes // input_type.dtype.size_bytes
    if count is None or not 1 <= count <= MAX_FEATURES:
        raise InvalidArgument(
            f"inputs of {input_type} cannot be features: expected numbers of a shape that fixes how many, at most "
            f"{MAX_FEATURES}, such as float64[8]; send others beside the input, features N"
        )
