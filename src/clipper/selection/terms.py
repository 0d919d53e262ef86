"""What an application answers by: its settings, and the versions that its links lead to."""

from collections.abc import Mapping

from clipper.abstraction.model_queue import ModelQueue
from clipper.abstraction.predictor import Predictor
from clipper.control.snapshot import ApplicationSnapshot
from clipper.decisions.application import ApplicationDecisions, versions_of
from clipper.decisions.log import DecisionLog
from clipper.decisions.records import Setting
from clipper.errors import NotFound, WrongInput
from clipper.selection.confidence import Confidences
from clipper.selection.contexts import Contexts
from clipper.selection.learning.arms import Arms
from clipper.selection.lineup import line_up
from clipper.selection.policies.policy import Choice
from clipper.selection.policies.query_view import as_features
from clipper.selection.selector import Selector
from clipper.types import InputType

# The deadline is when the answer should be at the client, so it leaves a little before: 5 % of the SLO, at most 2 ms.
MARGIN_SHARE = 0.05
MAX_MARGIN_S = 0.002
# One of several models leaves earlier by so much more, 2 ms at most: it can leave with what has come, which is better
# than to be late, and is made of that while other models have the processors (16 forests on two cores: 2 ms).
JOINT_MARGIN_SHARE = 0.1
# A measured cost is gone by until it has changed by so much: all that was worked out by it is made anew then.
COST_CHANGE = 0.1


class Terms:
    """As of one snapshot and the versions that run by then. Whenever either changes, new terms take the place of these.

    Attributes:
        selector: the policy at work.
        input_type: the declared type, with the lengths that it leaves open and the linked models fix.
        slo_s: what the application promises.
        budget_s: from a query's arrival to when its answer has to leave.
        joint_margin_s: how much earlier the answer leaves if several models make it.
        default: JSON text of the default output; None if the application has none.
        wait: for which models an answer waits; see ``Selection.wait``.
        threshold: an answer of less confidence is not believed.
        feedback_ttl_s: for how long queries are kept for feedback.
        features_are_input: the policy goes by the input itself.
        features_size: how many numbers each query brings for the policy; None if it brings none.
        targets: what answers for each link's name; None while nothing that takes this input runs.
        models, newcomers, shadows, ramp: the names, and how newcomers are asked: see ``Lineup``.
        arms: the versions that stand behind the names.
        only_choice: the choice of every query that names no version; None if the policy has to be asked.
        confidences: makes the answers' confidences; None where the policy's own are answered.
        decisions: writes the decision log; None if the application asks for no log.
    """

    __slots__ = (
        "_links",
        "_measured",
        "_name",
        "_pinned_arms",
        "_predictor",
        "arms",
        "budget_s",
        "confidences",
        "decisions",
        "default",
        "features_are_input",
        "features_size",
        "feedback_ttl_s",
        "input_type",
        "joint_margin_s",
        "models",
        "newcomers",
        "only_choice",
        "ramp",
        "selector",
        "shadows",
        "slo_s",
        "targets",
        "threshold",
        "wait",
    )

    def __init__(
        self,
        snapshot: ApplicationSnapshot,
        selector: Selector,
        contexts: Contexts,
        predictor: Predictor,
        log: DecisionLog | None,
    ) -> None:
        selection = snapshot.selection
        self._name = snapshot.name
        self._links = snapshot.links
        self._predictor = predictor
        self._pinned_arms: dict[str, Arms] = {}
        self.selector = selector

        self.slo_s = snapshot.slo_ms / 1000
        self.budget_s = self.slo_s - min(self.slo_s * MARGIN_SHARE, MAX_MARGIN_S)
        self.joint_margin_s = min(self.slo_s * JOINT_MARGIN_SHARE, MAX_MARGIN_S)
        if selector.goes_on:
            # Any query may come to ask several models, and then leaves as these do.
            self.budget_s -= self.joint_margin_s
            self.joint_margin_s = 0.0
        self.default = None if snapshot.default_output is None else snapshot.default_output.encode()
        self.wait = selection.wait
        self.threshold = selection.confidence_threshold or 0.0
        self.feedback_ttl_s = selection.feedback_ttl_s
        wanted = selection.features
        self.features_are_input = wanted == "input"
        self.features_size = wanted if isinstance(wanted, int) else None

        self.input_type = self._narrowed_type(snapshot)
        lineup = line_up(snapshot, predictor, self._find)
        self._measured = lineup.measured
        self.targets, self.arms, self.ramp = lineup.targets, lineup.arms, lineup.ramp
        self.models, self.newcomers, self.shadows = lineup.models, lineup.newcomers, lineup.shadows
        self.only_choice = None if self.newcomers else selector.only_choice(self.models)
        self.confidences = Confidences(selection, selector.loss, contexts) if selector.makes_confidence else None
        self.decisions: ApplicationDecisions | None = None
        if log is not None and selection.log_decisions:
            models = self.models + self.newcomers  # a choice's beliefs are of the former, in this order
            setting = Setting(snapshot.name, selection.policy, models, versions_of(models, self.targets), self.default)
            self.decisions = ApplicationDecisions(log, setting, selection.log_decisions)

    def pinned(self, version: str) -> tuple[Choice, Mapping[str, ModelQueue], Arms]:
        """What answers a query that names a version of one of the models.

        Raises:
            NotFound: there is no such version.
            WrongInput: it takes another type of input.
        """
        for model in dict.fromkeys(link.model for link in self._links if not link.shadow):
            target = self._predictor.find(model, version)
            if target is None:
                continue
            if not self.input_type.suits(target.input_type):
                raise WrongInput(
                    f"{target.model} takes {target.input_type}, application {self._name} has {self.input_type}"
                )
            arms = self._pinned_arms.get(version)
            if arms is None:
                arms = self._pinned_arms[version] = self.arms.with_key(model, str(target.model))
            return Choice((model,), (1.0,)), {model: target}, arms
        raise NotFound(f"no model linked to application {self._name} has a version {version[:100]!r} that runs")

    @property
    def is_ready(self) -> bool:
        """Whether a model can be asked."""
        return any(target is not None and target.is_linked for target in self.targets.values())

    @property
    def costs_have_changed(self) -> bool:
        """Whether a cost that is measured is noticeably another one than these terms go by."""
        by_name = self.arms.costs.by_model
        now = {name: target.compute_time.row_ms for name, target in self._measured.items()}
        return any(
            cost is not None and (name not in by_name or abs(cost - by_name[name]) > COST_CHANGE * by_name[name])
            for name, cost in now.items()
        )

    def outputs(self, version: str | None) -> list[tuple[InputType | None, bytes | None]]:
        """Of each model that a query asks, or one that names this version: the type of outputs, if its container knows
        it, and an output that it gave not long ago, as JSON text.

        Raises:
            NotFound, WrongInput: as ``pinned``.
        """
        names: Mapping[str, ModelQueue | None] = self.targets if version is None else self.pinned(version)[1]
        asked = [target for name, target in names.items() if target is not None and name not in self.shadows]
        return [(target.output_type, target.recent_output) for target in asked]

    def versions(self) -> dict[str, dict[str, bool]]:
        """What ``pinned`` may name: by version the models that have it, and whether a replica of each is linked."""
        found: dict[str, dict[str, bool]] = {}
        for model in dict.fromkeys(link.model for link in self._links if not link.shadow):
            for queue in self._predictor.versions_of(model):
                if self.input_type.suits(queue.input_type):
                    found.setdefault(queue.model.version, {})[model] = queue.is_linked
        return found

    def features_of(self, row: bytes) -> bytes | None:
        """The features that an input is; None where features do not come as the input."""
        return as_features(row, self.input_type) if self.features_are_input else None

    def why_not_asked(self, model: str) -> str:
        """What to say where a linked model has no target."""
        return f"model {model} has no version that runs and takes {self.input_type}"

    def _narrowed_type(self, snapshot: ApplicationSnapshot) -> InputType:
        narrowed = InputType.parse(snapshot.input_type)
        for link in snapshot.links:
            target = self._predictor.find(link.model, link.version)
            both = None if target is None else narrowed.narrowed(target.input_type)
            narrowed = both or narrowed
        return narrowed

    def _find(self, model: str, version: str | None) -> ModelQueue | None:
        """What runs and takes this application's rows as they are."""
        target = self._predictor.find(model, version)
        return target if target is not None and self.input_type.suits(target.input_type) else None
