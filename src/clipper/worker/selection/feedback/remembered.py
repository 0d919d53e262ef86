"""An answered query as bytes, so that another server can learn from feedback on it.

It has all that learning reads of a query. Times are the wall clock's, since each process has a clock of its own.
Outputs are their JSON texts, which policies and losses read.
"""

import msgspec

from clipper.errors import ProtocolViolation
from clipper.learning.mathematics.arms import Arms
from clipper.learning.mathematics.costs import Costs
from clipper.learning.policies.policy import Choice
from clipper.values.outputs.output import NOT_KEPT, Output, RecordOutput, is_readable, read_record
from clipper.worker.selection.confidence import Said
from clipper.worker.selection.query import Owner, Path, Query

_TEXT, _RECORD = b"t", b"r"


class RememberedQuery(msgspec.Struct, array_like=True, frozen=True):
    """See ``Query``.

    Attributes:
        application, application_id: of its application.
        asked_s: when it was asked, in seconds since 1970.
        slo_s: how long after that its deadline was.
        output: the answer; None also if it is the first output, as for most queries.
        steps: the steps of its way through a pipeline; None if there is none.
    """

    application: str
    application_id: str
    asked_s: float
    slo_s: float
    first_output: bytes | None
    more_outputs: dict[str, bytes] | None
    shadow_outputs: dict[str, bytes] | None
    output: bytes | None
    is_first: bool
    steps: tuple[tuple[str, str, int], ...] | None
    row: bytes | None
    context: str | None
    pinned: str | None
    features: bytes | None
    choice: Choice | None
    first_model: str | None
    missing: int
    late: int
    lost: tuple[str, ...]
    shed: tuple[str, ...]
    stage: int
    is_settled: bool
    failure: tuple[str, str] | None
    said: Said | None
    confidence: float
    reason: str | None
    candidates: tuple[str, ...] | None


# The fields that ``RememberedQuery`` shares with ``Query``.
_SAME = RememberedQuery.__struct_fields__[RememberedQuery.__struct_fields__.index("row") :]


class _Arms(msgspec.Struct, array_like=True, frozen=True):
    origins: dict[str, tuple[tuple[str, float], ...]]
    costs: dict[str, float]
    weight: float
    ramps: dict[str, int]
    state_keys: dict[str, str]
    lost: tuple[str, ...]


_encode = msgspec.msgpack.Encoder().encode
_decode_query = msgspec.msgpack.Decoder(RememberedQuery).decode
_decode_arms = msgspec.msgpack.Decoder(_Arms).decode


def encode_arms(arms: Arms) -> bytes:
    origins, costs, ramps, state_keys, lost = arms.arguments()
    each = {name: tuple(of_name) for name, of_name in origins.items()}
    return _encode(_Arms(each, dict(costs.by_model), costs.weight, dict(ramps), dict(state_keys), tuple(lost)))


def encode_query(query: Query, application_id: str, asked_s: float) -> bytes:
    output = query.output
    is_first = output is not None and output is query.first_output
    return _encode(
        RememberedQuery(
            query.owner.name,
            application_id,
            asked_s,
            query.deadline_s - query.arrival_s,
            _packed(query.first_output),
            _all_packed(query.more_outputs),
            _all_packed(query.shadow_outputs),
            None if is_first else _packed(output),
            is_first,
            None if query.path is None else query.path.queries,
            **{name: getattr(query, name) for name in _SAME},
        )
    )


def decode_arms(text: bytes) -> Arms:
    """Raises ProtocolViolation if the text is something else."""
    try:
        arms = _decode_arms(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ProtocolViolation(f"the arms of a remembered query are malformed: {error}") from error
    return Arms(arms.origins, Costs(arms.costs, arms.weight), arms.ramps, arms.state_keys, arms.lost)


def decode_query(text: bytes) -> RememberedQuery:
    """Raises ProtocolViolation if the text is something else."""
    try:
        return _decode_query(text)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ProtocolViolation(f"a remembered query is malformed: {error}") from error


def as_query(query_id: int, of: RememberedQuery, arms: Arms, owner: Owner, arrival_s: float) -> Query:
    """Return the query; ``arrival_s`` is when it was asked by this process's clock."""
    first = _unpacked(of.first_output)
    return Query(
        owner=owner,
        asker=None,
        id=query_id,
        arrival_s=arrival_s,
        deadline_s=arrival_s + of.slo_s,
        arms=arms,
        first_output=first,
        more_outputs=_all_unpacked(of.more_outputs),
        shadow_outputs=_all_unpacked(of.shadow_outputs),
        output=first if of.is_first else _unpacked(of.output),
        path=None if of.steps is None else Path(of.steps, None),
        done=True,
        **{name: getattr(of, name) for name in _SAME},
    )


def _packed(output: Output | None) -> bytes | None:
    if output is None:
        return None
    if not is_readable(output):
        return b""
    return (_RECORD if isinstance(output, RecordOutput) else _TEXT) + bytes(output)


def _all_packed(outputs: dict[str, Output] | None) -> dict[str, bytes] | None:
    return None if outputs is None else {model: _packed(output) or b"" for model, output in outputs.items()}


def _unpacked(packed: bytes | None) -> Output | None:
    if packed is None:
        return None
    if not packed:
        return NOT_KEPT
    return read_record(packed[1:]) if packed[:1] == _RECORD else packed[1:]


def _all_unpacked(packed: dict[str, bytes] | None) -> dict[str, Output] | None:
    if packed is None:
        return None
    return {model: _unpacked(each) or NOT_KEPT for model, each in packed.items()}
