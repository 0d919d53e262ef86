"""Compares desired replicas with observed ones, and decides what to start, retire and forget.

A *slot* is the place of one replica of a version, numbered from 1. Containers in it come and go.
A slot is ``starting``, ``ready`` or ``stopping`` while it has a container, and ``dead`` after that.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from clipper.supervisor.managers.reconcile.backoff import NO_DEATHS, History
from clipper.values.types import ModelId

Phase = Literal["starting", "ready", "stopping", "dead"]


@dataclass(frozen=True, slots=True, order=True)
class Slot:
    """``str()`` is the replica's name, e.g. ``digits:2#1``."""

    model: str
    version: str
    index: int

    @property
    def model_id(self) -> ModelId:
        return ModelId(self.model, self.version)

    @property
    def log_fields(self) -> dict[str, str]:
        """What a record of a log says of it."""
        return {"model": self.model, "version": self.version, "replica": str(self)}

    def __str__(self) -> str:
        return f"{self.model}:{self.version}#{self.index}"


@dataclass(frozen=True, slots=True)
class SlotState:
    """What a slot was last observed to be."""

    slot: Slot
    phase: Phase
    history: History = NO_DEATHS


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now, in order of slots.

    Attributes:
        start: slots that get a container.
        retire: slots to take out of service. Their container stops once no query needs it.
        forget: dead slots that are not desired any more.
        wake_at_s: when the next start falls due; None if none is waiting.
    """

    start: tuple[Slot, ...] = ()
    retire: tuple[Slot, ...] = ()
    forget: tuple[Slot, ...] = ()
    wake_at_s: float | None = None


def plan_replicas(desired: Mapping[ModelId, int], observed: Iterable[SlotState], now_s: float) -> Plan:
    """Compare desired with observed replicas, and plan what to do now.

    Args:
        desired: the target number of replicas of each version; 0 for a version that is absent.
        observed: every slot that has a container or a history.
    """
    seen = {one.slot: one for one in observed}
    wanted = {
        Slot(model_id.name, model_id.version, index)
        for model_id, replicas in desired.items()
        for index in range(1, replicas + 1)
    }
    vacant = sorted(slot for slot in wanted if slot not in seen or seen[slot].phase == "dead")
    due = {slot: seen[slot].history.restart_at_s if slot in seen else now_s for slot in vacant}
    unwanted = sorted(slot for slot in seen if slot not in wanted)
    return Plan(
        start=tuple(slot for slot in vacant if due[slot] <= now_s),
        retire=tuple(slot for slot in unwanted if seen[slot].phase in ("starting", "ready")),
        forget=tuple(slot for slot in unwanted if seen[slot].phase == "dead"),
        wake_at_s=min((at_s for at_s in due.values() if at_s > now_s), default=None),
    )
