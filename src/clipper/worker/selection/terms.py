"""The terms by which an application answers: its settings, and the versions of its links."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from random import Random

from clipper.control.snapshot import ApplicationSnapshot
from clipper.errors import ModelFailed, NotFound, WrongInput
from clipper.learning.decisions.application import ApplicationDecisions, versions_of
from clipper.learning.decisions.log import DecisionLog
from clipper.learning.decisions.records import Setting
from clipper.learning.decisions.redaction import Redaction
from clipper.learning.mathematics.arms import Arms
from clipper.learning.mathematics.losses import Log
from clipper.learning.mathematics.probabilities import OF_ALL, OF_LABEL
from clipper.learning.mathematics.totals import Totals
from clipper.learning.policies.policy import Choice, QueryView, as_features
from clipper.settings.version import MAX_BATCH
from clipper.values.inputs.reader import Reader
from clipper.values.inputs.record_features import RecordFeatures
from clipper.values.inputs.record_reader import reader_of
from clipper.values.outputs.conversion import Conversion, common_conversion
from clipper.values.outputs.output import Output, judged_names, judged_text
from clipper.values.records import RecordType, ValueType, parse_type
from clipper.values.types import InputType
from clipper.worker.abstraction.model_queue import ModelQueue
from clipper.worker.abstraction.predictor import Predictor
from clipper.worker.selection.confidence import Confidences
from clipper.worker.selection.contexts import Contexts
from clipper.worker.selection.lineup import line_up
from clipper.worker.selection.selector import Selector

# The answer should be at the client by the deadline, so it is sent a little earlier: 5 % of the SLO, at most 2 ms.
MARGIN_SHARE = 0.05
MAX_MARGIN_S = 0.002
# An answer of several models is sent earlier by this much more, 2 ms at most: it can be sent with the outputs so far,
# which is better than late, and it is made while other models use the processors (16 forests on two cores: 2 ms).
JOINT_MARGIN_SHARE = 0.1
# A chance below this counts as 0, and a chance above 1 minus this as 1.
NO_CHANCE = 0.01
# A measured cost is used until it has changed by this share. Then all values derived from it are computed anew.
COST_CHANGE = 0.1


class Terms:
    """The terms of a snapshot and of the versions that run at that time. New terms replace them when either changes.

    Attributes:
        input_type: the declared type, with the open lengths fixed by the linked models.
        null_is_nan: whether null in a tensor of floats is NaN.
        ignores_unknown_fields: whether a record may have fields that its type does not have.
        slo_s: the application's SLO; its waking SLO while ``is_waking``.
        is_waking: whether it has a waking SLO, no model of it has a replica, and a model is asleep.
        budget_s: time from a query's arrival until its answer must be sent.
        joint_margin_s: how much earlier an answer of several models must be sent.
        default: JSON text of the default output, as the models' declared type has it; None if the application has none.
        judged_default: the part of the default that labels are compared with.
        shows_model: whether answers say which versions gave them.
        wait: which models an answer waits for; see ``Selection.wait``.
        threshold: answers of less confidence are not believed.
        judged: the text of an output that policies combine, and that labels are compared with.
        features_are_input: whether the input itself is the features.
        features_size: number of features that each query brings; None if it brings none.
        targets: the queue for each link's name; None if no suitable version runs.
        max_batch: the largest batch that one of its models takes.
        models, newcomers, shadows, ramp: the names, and how newcomers are asked: see ``Lineup``.
        select: has the policy select among models, and gives newcomers their share: see ``Selector.select``.
        tried: the newcomers on trial: see ``Lineup``.
        is_watching: whether a newcomer is watched, so that another version may be asked in its place.
        only_choice: the choice of every query that names no version; None if the policy must be asked.
        confidences: makes the answers' confidences; None if the policy's own are used.
        decisions: writes the decision log; None if the application has no log.
    """

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

        self.input_type = self._narrowed_type(snapshot)
        self.null_is_nan, self.ignores_unknown_fields = snapshot.null_is_nan, snapshot.ignore_unknown_fields
        lineup = line_up(snapshot, predictor, self._find)
        self._measured = lineup.measured
        self.targets, self.arms, self.ramp = lineup.targets, lineup.arms, lineup.ramp
        self.select: Callable[[tuple[str, ...], Totals, QueryView, Random], Choice] = (
            selector.select if self.ramp is None else partial(selector.select_beside, self.ramp)
        )
        self.models, self.newcomers, self.shadows = lineup.models, lineup.newcomers, lineup.shadows
        running = [target for name in self.models if (target := self.targets[name]) is not None]
        self.max_batch = max((each.snapshot.batching.max_batch for each in running), default=MAX_BATCH)
        is_asleep = any(each.is_asleep for each in running) and not any(each.is_served for each in running)
        slo_ms, waking_slo_ms = snapshot.slo_ms, snapshot.waking_slo_ms
        self.is_waking = is_asleep and waking_slo_ms is not None
        self.slo_s = (slo_ms if waking_slo_ms is None or not is_asleep else waking_slo_ms) / 1000
        self.budget_s = self.slo_s - min(self.slo_s * MARGIN_SHARE, MAX_MARGIN_S)
        self.joint_margin_s = min(self.slo_s * JOINT_MARGIN_SHARE, MAX_MARGIN_S)
        if selector.goes_on:
            # Any query may end up asking several models, so all have the earlier deadline.
            self.budget_s -= self.joint_margin_s
            self.joint_margin_s = 0.0
        default = None if snapshot.default_output is None else self._typed(snapshot.default_output.encode())
        self.default = None if default is None else bytes(default)
        self.shows_model = snapshot.show_model
        self.nan_as_text = snapshot.nan_as_text
        self.wait = selection.wait
        self.threshold = selection.confidence_threshold or 0.0
        named = selection.label_field
        is_log = isinstance(selector.loss, Log)
        # A policy or loss that reads how sure an output is needs that beside the label.
        kept_with = () if named else (*OF_LABEL, OF_ALL) if selector.goes_on else OF_LABEL if is_log else ()
        self.judged = partial(
            judged_text, names=judged_names(named, is_log=is_log), is_named=named is not None, kept_with=kept_with
        )
        self.judged_default = None if default is None else self.judged(default)
        self.feedback_ttl_s = selection.feedback_ttl_s
        wanted = selection.features
        self.features_are_input = isinstance(wanted, str)
        self.features_size = wanted if isinstance(wanted, int) else None
        self._record_features: RecordFeatures | None = None
        if isinstance(wanted, str) and isinstance(self.input_type, RecordType):
            # By the application's own categories: what its policy has learned must keep its places.
            own = parse_type(snapshot.input_type)
            categories = [field.categories for field in own.fields] if isinstance(own, RecordType) else []
            self._record_features = RecordFeatures(self.input_type.with_categories(categories), wanted)

        self.tried = lineup.tried
        self.is_watching = any(one.is_watched for one in self.tried.values())
        known = {*self.models, *self.newcomers, *self.shadows}
        self._compared = tuple(
            one.rest for one in self.tried.values() if one.is_watched and one.rest and one.rest not in known
        )
        self.only_choice = None if self.newcomers or self.is_watching else selector.only_choice(self.models)
        self.confidences = Confidences(selection, selector.loss, contexts) if selector.makes_confidence else None
        self.decisions: ApplicationDecisions | None = None
        if log is not None and selection.log_decisions:
            # A choice's beliefs are about the first models, in this order.
            models = self.models + self.newcomers + self._compared
            versions = versions_of(models, self.targets)
            redaction = Redaction(selection.redact, self.input_type, self._record_features, named)
            names = redaction.feature_names
            setting = Setting(snapshot.name, selection.policy, models, versions, self.default, names)
            keeps_inputs = selection.log_inputs != "off"
            self.decisions = ApplicationDecisions(log, setting, selection.log_decisions, redaction, keeps_inputs)

    def make_reader(self, ignores_unknown: bool = False) -> Reader:
        """Return a reader of inputs. ``ignores_unknown``: it ignores unknown fields whatever the application says."""
        return reader_of(self.input_type, self.null_is_nan, ignores_unknown or self.ignores_unknown_fields)

    def pinned(self, version: str) -> tuple[Choice, Mapping[str, ModelQueue], Arms]:
        """Return the choice, target and versions for a query that names a version of one of the models. Raises NotFound
        if this version does not run, and WrongInput if it takes another type of input."""
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
        raise NotFound(f"no model linked to application {self._name} has a running version {version[:100]!r}")

    @property
    def is_ready(self) -> bool:
        """Whether at least one model can be asked. A model that is asleep wakes then."""
        return any(target is not None and (target.is_linked or target.wakes) for target in self.targets.values())

    @property
    def costs_have_changed(self) -> bool:
        """Return whether a measured cost differs noticeably from the cost in these terms."""
        if not self._measured:
            return False
        by_name = self.arms.costs.by_model
        now = {name: target.compute_time.row_ms for name, target in self._measured.items()}
        return any(
            cost is not None and (name not in by_name or abs(cost - by_name[name]) > COST_CHANGE * by_name[name])
            for name, cost in now.items()
        )

    def outputs(self, version: str | None) -> Conversion | None:
        """Return what converts the answers to queries (or to those that name this version) to their type, for clients
        that need one type for all; None if it is not known, or the models have types that no other one covers.

        Raises NotFound or WrongInput, as ``pinned``.
        """
        names: Mapping[str, ModelQueue | None] = self.targets if version is None else self.pinned(version)[1]
        silent = (*self.shadows, *self._compared)
        asked = [target for name, target in names.items() if target is not None and name not in silent]
        # A model whose answers have shown no type yet says nothing.
        return _common([each.output_typing.conversion() for each in asked if each.output_typing.is_known])

    def declared_outputs(self) -> Conversion | None:
        """Return a conversion to the type that all models declare; None if one declares none, or none covers all."""
        targets = [self.targets[name] for name in self.models]
        return _common([None if target is None else target.output_typing.declared for target in targets])

    def versions(self) -> dict[str, dict[str, bool]]:
        """Return the versions that a query may name: for each, the models that have it, and whether each is there."""
        found: dict[str, dict[str, bool]] = {}
        for model in dict.fromkeys(link.model for link in self._links if not link.shadow):
            for queue in self._predictor.versions_of(model):
                if self.input_type.suits(queue.input_type):
                    found.setdefault(queue.model.version, {})[model] = queue.is_linked or queue.wakes
        return found

    def features_of(self, row: bytes) -> bytes | None:
        """Return the features that are the input itself; None if the application does not use the input as features."""
        if not self.features_are_input:
            return None
        if self._record_features is not None:
            return self._record_features.of(row)
        return as_features(row, self.input_type) if isinstance(self.input_type, InputType) else None

    def why_not_asked(self, model: str) -> str:
        return f"model {model} has no running version that takes {self.input_type}"

    def _typed(self, default: bytes) -> Output:
        """Return the default output as one of the type that the models declare; as it is if it is none of that."""
        common = self.declared_outputs()
        if common is None:
            return default
        try:
            return common.convert(default)
        except ModelFailed:  # set before Clipper checked defaults
            return default

    def _narrowed_type(self, snapshot: ApplicationSnapshot) -> ValueType:
        narrowed = parse_type(snapshot.input_type)
        known: list[RecordType] = []
        for link in snapshot.links:
            target = self._predictor.find(link.model, link.version)
            both = None if target is None else narrowed.narrowed(target.input_type)
            if both is not None and target is not None and isinstance(target.input_type, RecordType):
                known.append(target.input_type)
            narrowed = both or narrowed
        if not isinstance(narrowed, RecordType) or not known:
            return narrowed
        # A model that was trained anew may know further categories than the model whose type the application has.
        categories = []
        for field, *others in zip(narrowed.fields, *(record.fields for record in known)):
            listed = [other.categories for other in others]
            categories.append(tuple(dict.fromkeys(chain(*listed))) if all(listed) else field.categories)
        return narrowed.with_categories(categories)

    def _find(self, model: str, version: str | None) -> ModelQueue | None:
        """Return the queue of a version that runs and takes this application's rows as they are."""
        target = self._predictor.find(model, version)
        return target if target is not None and self.input_type.suits(target.input_type) else None


def _common(conversions: Sequence[Conversion | None]) -> Conversion | None:
    """Return a conversion to a type that covers all; None if there is none, or if one is not known."""
    known = [each for each in conversions if each is not None]
    return common_conversion(known) if known and len(known) == len(conversions) else None
