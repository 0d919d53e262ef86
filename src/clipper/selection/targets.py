"""Which versions an application's links lead to."""

from collections.abc import Mapping

from clipper.abstraction.model_queue import ModelQueue
from clipper.abstraction.predictor import Predictor
from clipper.control.snapshot import ApplicationSnapshot
from clipper.errors import NotFound, WrongInput
from clipper.selection.learning.arms import Arms
from clipper.selection.lineup import line_up
from clipper.selection.policies.policy import Choice
from clipper.types import InputType


class Targets:
    """As of one snapshot.

    Attributes:
        input_type: the declared type, with the lengths that it leaves open and the linked models fix.
        by_name: by link's name what answers for it; None while nothing that takes this input runs.
        models, newcomers, shadows, ramp: their names, and how newcomers are asked: see ``Lineup``.
        arms: the versions that stand behind the names.
    """

    def __init__(self, snapshot: ApplicationSnapshot, predictor: Predictor) -> None:
        self._name = snapshot.name
        self._links = snapshot.links
        self._predictor = predictor
        self.input_type = self._narrowed_type(snapshot)
        lineup = line_up(snapshot, predictor, self._find)
        self.by_name, self.arms = lineup.targets, lineup.arms
        self.models, self.newcomers, self.shadows = lineup.models, lineup.newcomers, lineup.shadows
        self.ramp = lineup.ramp
        self._pinned_arms: dict[str, Arms] = {}

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
        return any(target is not None and target.is_linked for target in self.by_name.values())

    def outputs(self, version: str | None) -> list[tuple[InputType | None, bytes | None]]:
        """Of each model that a query asks, or one that names this version: the type of outputs, if its container knows
        it, and an output that it gave not long ago, as JSON text."""
        names: Mapping[str, ModelQueue | None] = self.by_name if version is None else self.pinned(version)[1]
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
