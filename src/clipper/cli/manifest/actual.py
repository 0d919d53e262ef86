"""What a server has, as far as a file may speak of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from clipper.api.schemas import Application, Key, ShownState
from clipper.settings.version import Deployment, ManagerName


@dataclass(frozen=True, slots=True)
class ActualVersion:
    """``deployment`` would make the version again. Its ``make_current`` is False if it runs without being current.

    ``stopped``: why a guardrail stopped it, as the API's ``Version`` has it.
    """

    state: ShownState
    deployment: Deployment
    stopped: str | None = None


@dataclass(frozen=True, slots=True)
class ActualModel:
    """``versions`` are in the order in which they were deployed."""

    current: str | None
    versions: Mapping[str, ActualVersion]


@dataclass(frozen=True, slots=True)
class Actual:
    """Models, applications and keys by name. ``manager`` runs the versions that name none."""

    models: Mapping[str, ActualModel] = field(default_factory=dict)
    applications: Mapping[str, Application] = field(default_factory=dict)
    keys: Mapping[str, Key] = field(default_factory=dict)
    manager: ManagerName = "local"

    def pinned(self, model: str) -> frozenset[str]:
        """The versions of a model that applications link by name."""
        links = (link for application in self.applications.values() for link in application.links)
        return frozenset(link.version for link in links if link.model == model and link.version is not None)

    def lasting(self, model: str) -> tuple[str, ...]:
        """The versions that a file has to name: the current one last, and those that run for another reason.

        The others are the model's history: what a rollback returns to.
        """
        found, pinned = self.models[model], self.pinned(model)
        others = [
            name
            for name, version in found.versions.items()
            if name != found.current
            and (name in pinned or (version.state != "failed" and not version.deployment.make_current))
        ]
        return (*others, *([] if found.current is None else [found.current]))
