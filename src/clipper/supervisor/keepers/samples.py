"""Finds the inputs to warm containers up with: a version's own sample, a remembered input, or a row of zeros."""

import asyncio
import logging
from contextlib import suppress

import msgspec
from msgspec.structs import replace

from clipper.control.messages import GetRecentInput, RecentInput
from clipper.errors import RequestError, WrongInput
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.managers.caller import WARM_UP_ROWS, Sample, made_row
from clipper.supervisor.registry.records import VersionRecord
from clipper.supervisor.workers.workers import Workers
from clipper.values.inputs.record_reader import reader_of
from clipper.values.inputs.sample_types import sample_rows
from clipper.values.records import RecordType, ValueType, parse_type
from clipper.values.types import ModelId

log = logging.getLogger(__name__)

# At most this many models are asked for at once. Thousands of replicas may start together, for example after the
# machine restarts, and a worker's control socket takes a hundred callers.
MAX_ASKING = 8
# The most characters of a model's message that are kept with the version, as in an answer.
MAX_UNANSWERED = 300


class Samples:
    """A ``SampleSource``. It prefers real inputs, since zeros may not exercise all of a model.

    Rows are made only for model files, which state their input type: users' code might have side effects.
    """

    def __init__(self, catalog: Catalog, workers: Workers) -> None:
        self._catalog = catalog
        self._workers = workers
        # By model, the questions to workers under way: replicas that start together share the answer.
        self._asking: dict[str, asyncio.Task[RecentInput | None]] = {}
        self._turns = asyncio.Semaphore(MAX_ASKING)

    def known_type(self, id_: ModelId) -> str | None:
        record = self._catalog.versions.get(id_)
        return None if record is None else record.input_type

    async def find(self, id_: ModelId, input_type: ValueType) -> Sample | None:
        """Return the version's own sample, else the model's recent input, else another version's, else a made row."""
        record = self._catalog.versions.get(id_)
        if record is None or record.warm_up_rows == 0:
            return None
        max_batch = _max_batch(record)
        if record.spec.sample is not None:
            first, *others = read_sample(record.spec.sample, input_type)
            return Sample(first, "given", max_batch, tuple(others))
        row = await self._recent(id_.name, input_type) or self._inherited(id_.name, input_type)
        if row is not None:
            return Sample(row, "remembered", max_batch)
        made = None if record.spec.framework is None else made_row(input_type)
        return None if made is None else Sample(made, "made", max_batch)

    def has_tried(self, id_: ModelId, failure: str | None) -> None:
        """Record with the version whether it is known to answer any input."""
        record = self._catalog.versions.get(id_)
        unanswered = "" if failure is None else " ".join(failure.split())[:MAX_UNANSWERED]
        if record is not None and record.unanswered != unanswered:
            self._catalog.note(replace(record, unanswered=unanswered))

    def has_killed(self, id_: ModelId, rows: int) -> bool:
        """Record with the version that it must not be tried with as many rows again; but not if the sample should show
        that a new version works: that version has failed.
        """
        record = self._catalog.versions.get(id_)
        if record is None or (record.spec.sample is not None and record.state == "starting"):
            return False
        left = min(1 if rows > 1 else 0, _max_batch(record))
        log.warning(
            "a replica of %(model)s:%(version)s ended over a warm-up batch of %(rows)d, or shortly after: "
            "its next starts warm up with at most %(limit)d rows",
            {**id_.log_fields, "rows": rows, "limit": left},
        )
        self._catalog.note(replace(record, warm_up_rows=left))
        return True

    async def _recent(self, model: str, input_type: ValueType) -> bytes | None:
        asking = self._asking.get(model)
        if asking is None:
            asking = self._asking[model] = asyncio.get_running_loop().create_task(self._ask(model))
            asking.add_done_callback(lambda _: self._asking.pop(model, None))
        # If one replica is stopped meanwhile, the question must go on for the others.
        recent = await asyncio.shield(asking)
        if recent is None or not parse_type(recent.input_type).suits(input_type):
            return None
        return recent.row

    async def _ask(self, model: str) -> RecentInput | None:
        async with self._turns:
            return await self._workers.ask_until(GetRecentInput(model), lambda recent: recent.row is not None)

    def _inherited(self, model: str, input_type: ValueType) -> bytes | None:
        for record in reversed(self._catalog.versions_of(model)):
            if record.spec.sample is not None:
                with suppress(RequestError):  # the input has another type
                    return read_sample(record.spec.sample, input_type)[0]
        return None


def read_sample(text: str, input_type: ValueType) -> list[bytes]:
    """Read the rows that a sample has for a warm-up: one, or of a table of records some.

    A table may have more columns than the model takes, such as the label. Raises RequestError if a row is not an input
    of this type.
    """
    reader = reader_of(input_type, ignores_unknown=True)
    if not isinstance(input_type, RecordType):
        return [reader.read(text.encode())]
    records = sample_rows(msgspec.json.decode(text))
    if not records:
        raise WrongInput(f"it is no record: expected a JSON object of {input_type}, or a list of such objects")
    return [reader.read(msgspec.json.encode(record)) for record in records[:WARM_UP_ROWS]]


def _max_batch(record: VersionRecord) -> int:
    allowed = 1 if record.batching.policy == "none" else record.batching.max_batch
    return allowed if record.warm_up_rows is None else min(allowed, record.warm_up_rows)
