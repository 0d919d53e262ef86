"""Shows records and processes in the schemas of the management API."""

from collections import Counter
from collections.abc import Sequence

import msgspec
from msgspec import UNSET
from msgspec.structs import asdict

from clipper.api.learned import Newcomer, Watched
from clipper.api.recent import LastMinute
from clipper.api.schemas import (
    Application,
    LearnedPolicy,
    Model,
    OptionStatus,
    Replica,
    ReplicaState,
    ShownState,
    Version,
    WorkerStatus,
)
from clipper.control import snapshot
from clipper.control.messages import PolicyDescription
from clipper.control.statistics import ApplicationStatistics
from clipper.learning.mathematics.guardrail import ENOUGH_FEEDBACK
from clipper.learning.policies.trials import ENOUGH_ANSWERS, Evidence
from clipper.settings.application import Configured, Selection
from clipper.settings.fields import settings_of, shared
from clipper.settings.server import ServerSettings
from clipper.settings.start_options import StartOptions, value_text
from clipper.settings.variables import shown_values
from clipper.settings.version import Deployment
from clipper.supervisor.keepers.ramps import Ramps
from clipper.supervisor.managers.manager import SlotStatus
from clipper.supervisor.operations.parts import OfParts
from clipper.supervisor.registry.records import ApplicationRecord, VersionRecord
from clipper.supervisor.rollout import rollbacks
from clipper.supervisor.workers.worker_process import WorkerProcess


def options_view(options: StartOptions) -> dict[str, OptionStatus]:
    """Return all options of the server by name, with their values and sources."""
    found = {}
    for described in settings_of(ServerSettings):
        option = options.options.get(described.name)
        if option is None:
            value: str | None = described.setting.default or value_text(described.default)
        else:
            value = None if option.is_secret else value_text(option.value)
        found[described.flag.removeprefix("--")] = OptionStatus(value, options.source(described.name))
    return found


def application_view(
    record: ApplicationRecord,
    ramps: Ramps,
    problem: str | None = None,
    description: PolicyDescription | None = None,
    recent: LastMinute | None = None,
) -> Application:
    """Show an application.

    ``problem`` and ``description`` are those of its policy, if workers were asked for them; ``recent`` are the outcomes
    of its queries of the last minute, if they shall be shown.
    """
    selection = record.selection
    ramped = [newcomer for newcomer in record.newcomers if newcomer.stopped is None]
    share = (selection.ramp or 0.0) / len(ramped) if ramped else 0.0
    values = shared(selection, Application) | shared(record, Application)
    values |= {
        "policy": Configured(selection.policy, selection.parameters),
        "loss": Configured(selection.loss, selection.loss_parameters),
        "default_output": UNSET if record.default_output is None else msgspec.json.decode(record.default_output),
        "id": record.state_id,
        "newcomers": tuple(
            Newcomer(
                **shared(newcomer, Newcomer) | asdict(ramps.outcome(record, newcomer)),
                share=0.0 if newcomer.stopped else share,
                enough_feedback=ENOUGH_FEEDBACK,
            )
            for newcomer in record.newcomers
        ),
        "watched": tuple(_watched_view(newcomer, ramps.trial(record, newcomer)) for newcomer in record.watched),
        "ended_ramps": ramps.ended(record),
    }
    return Application(
        **values,
        problem=problem,
        test=None if description is None else description.test,
        last_minute=recent,
    )


def _watched_view(newcomer: snapshot.Newcomer, trial: Evidence) -> Watched:
    own, rest = trial.newcomer, trial.rest
    return Watched(
        model=newcomer.model,
        version=newcomer.version,
        before=newcomer.before,
        answers=trial.answers,
        enough_answers=ENOUGH_ANSWERS,
        compared=round(own.count),
        failed=round(own.loss),
        rest_compared=round(rest.count),
        rest_failed=round(rest.loss),
        last_error=trial.last_error or None,
    )


def policy_view(
    selection: Selection,
    context: str | None,
    description: PolicyDescription,
    problem: str | None,
    asked: Sequence[ApplicationStatistics],
) -> LearnedPolicy:
    """Show an application's policy. ``asked``: each worker's statistics of its queries."""
    mean_cost, stages = _mean_cost_and_stages(asked)
    values = shared(selection, LearnedPolicy) | shared(description, LearnedPolicy) | {"problem": problem}
    return LearnedPolicy(**values, context=context, mean_cost=mean_cost, stages=stages)


def _mean_cost_and_stages(asked: Sequence[ApplicationStatistics]) -> tuple[float | None, tuple[float, ...]]:
    queries = sum(application.queries for application in asked)
    cost, has_cost = 0.0, False
    stages: Counter[int] = Counter()
    for selection in (application.selection for application in asked if application.selection is not None):
        for model in selection.models.values():
            has_cost = has_cost or model.cost is not None
            cost += model.selected * (model.cost or 0.0)
        stages.update({int(stage): times for stage, times in selection.stages.items()})
    if not queries:
        return None, ()
    shares = tuple(stages[stage] / queries for stage in range(2, max(stages, default=1) + 1))
    return cost / queries if has_cost else None, shares


def deployment_view(record: VersionRecord) -> Deployment:
    """Return the deployment that would make a version again."""
    sample = record.spec.sample
    shown = {"sample": None if sample is None else msgspec.json.decode(sample), "env": shown_values(record.spec.env)}
    return Deployment(
        **shared(record.spec, Deployment) | shown,
        version=record.version,
        replicas=record.loads_with or record.scaling or record.replicas_wanted,
        batching=record.batching,
        cache=record.cache,
        make_current=not record.kept,
    )


def worker_view(worker: WorkerProcess) -> WorkerStatus:
    pid = worker.process.pid if worker.process else None
    generation = worker.applied.generation if worker.applied else 0
    return WorkerStatus(worker.index, pid, worker.phase, worker.restarts, generation, worker.last_error, worker.node)


class Views(OfParts):
    """Shows the present models, versions and replicas. Batch limits are from the last readings of workers."""

    def model(self, name: str) -> Model:
        record = self._catalog.model(name)
        versions = tuple(self.version(version) for version in self._catalog.versions_of(name))
        return Model(name, record.current, rollbacks.target(self._catalog, record), versions)

    def version(self, record: VersionRecord) -> Version:
        state = record.state
        if state == "ready" and not self._reconciler.rollout.is_announced(record.id):
            state = "starting"
        without: ShownState = "asleep" if record.loads_with is None else "unloaded"
        shown: ShownState = without if state == "ready" and record.replicas_wanted == 0 else state
        slots = self._manager.slots(record.id)
        warning = "; ".join(filter(None, (record.warning, record.unknown))) or None
        states = ["crash_loop" if slot.is_looping else replica_state(slot) for slot in slots]
        condition = condition_of(shown, states)
        if condition == "ready" and self._parts.sampling.health.fails(record.id):
            condition = "failing"
        return Version(
            **(
                shared(record.spec, Version)
                | shared(record, Version)
                | {"state": shown, "warning": warning}
                | {"replicas_wanted": self._catalog.running().get(record.id, record.replicas_wanted)}
            ),
            variables=tuple(record.spec.env),
            current=self._catalog.model(record.model).current == record.version,
            replicas=tuple(self.replica(slot) for slot in slots),
            condition=condition,
            progress=next((one.replica.progress for one in slots if one.replica and one.replica.progress), None),
            scaling_reason=self._parts.scaler.reason(record.id) if record.scaling else None,
        )

    def replicas(self) -> list[Replica]:
        return [self.replica(slot) for slot in self._manager.slots()]

    def replica(self, status: SlotStatus) -> Replica:
        """Show a replica. Without a process, its id is its slot's name."""
        id_ = status.replica.note.id if status.replica else str(status.slot)
        return Replica(
            id=id_,
            model=status.slot.model,
            version=status.slot.version,
            state=replica_state(status),
            pid=status.replica.pid if status.replica else None,
            restarts=status.restarts,
            last_error=status.last_error,
            batch_limit=self._parts.sampling.sampler.batch_limits(status.slot.model_id).get(id_),
            log=str(self._manager.log_path(status.slot)),
            node=status.replica.node if status.replica else None,
        )


def condition_of(state: ShownState, replicas: Sequence[ReplicaState]) -> str:
    """Return the ``condition`` of ``Version``. A replica in a crash loop has that state even while it is restarted."""
    if state not in ("ready", "starting"):
        return state
    crashing = next((one for one in ("crash_loop", "backing_off") if one in replicas), None)
    if "ready" not in replicas:
        return crashing or "starting"
    return "degraded" if crashing and state == "ready" else state


def replica_state(status: SlotStatus) -> ReplicaState:
    if status.phase == "dead":
        return "crash_loop" if status.history.crash_loop else "backing_off"
    return status.phase
