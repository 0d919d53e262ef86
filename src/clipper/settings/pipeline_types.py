"""Checks that the steps of a pipeline get values of their types, as far as these are known when it is made."""

from collections.abc import Mapping
from typing import NamedTuple

from clipper.errors import InvalidArgument
from clipper.settings.pipeline import CONFIDENCE, ITEM, QUERY, Condition, Graph, Node, Reference, Values
from clipper.values.records import Field, RecordType, ValueType
from clipper.values.types import DType, InputType, Shape

_CONFIDENCE = InputType(DType.FLOAT64, ())


class StepType(NamedTuple):
    """The types of an application's inputs and outputs; None if they are not known yet."""

    input: ValueType | None
    output: ValueType | None


def check_types(graph: Graph, query: ValueType, steps: Mapping[str, StepType]) -> None:
    """Check the types of a pipeline.

    Args:
        query: the type of the pipeline's inputs.
        steps: the types of each step's application.

    Raises InvalidArgument if a step would get a value that its type can never hold, or if a value has no such field.
    The message begins with the place, such as ``steps.rank.input.vector``.
    """
    nodes = {node.name: node for node in graph.nodes}
    known = _Known(query, {name: _output(nodes[name], steps[name].output) for name in nodes})
    for node in graph.nodes:
        item = known.item(node)
        if node.when is not None:
            known.check_condition(f"steps.{node.name}.when", node.when)
        found = known.all(f"steps.{node.name}.input", node.input, item)
        wanted = steps[node.name].input
        if wanted is not None:
            _check(f"steps.{node.name}.input", found, wanted)
    known.all("output", graph.output, None)


# The types that a value may have, by its name; a type is None if it is not known.
_Found = Mapping[str | None, list[ValueType | None]]


class _Known:
    """The types that are known of the values of a query."""

    def __init__(self, query: ValueType, outputs: Mapping[str, ValueType | None]) -> None:
        self._sources: dict[str, ValueType | None] = {QUERY: query, **outputs}

    def all(self, at: str, values: Values, item: ValueType | None) -> _Found:
        return {
            name: [self._type(at if name is None else f"{at}.{name}", each, item) for each in value]
            for name, value in values
        }

    def item(self, node: Node) -> ValueType | None:
        """Return the type of an element of the node's list."""
        found: list[ValueType | None] = []
        for each in node.for_each or ():
            of_list = self._type(at := f"steps.{node.name}.for_each", each, None)
            if of_list is None:
                return None
            if isinstance(of_list, RecordType) or not of_list.shape:
                raise InvalidArgument(f"{at}: {each} is {of_list}, which is no list")
            found.append(InputType(of_list.dtype, of_list.shape[1:]))
        return found[0] if len(found) == 1 else None

    def check_condition(self, at: str, condition: Condition) -> None:
        for each in condition.value:
            found = self._type(at, each, None)
            if found is None or condition.constant is None:
                continue
            is_single = isinstance(found, InputType) and all(size in (1, None) for size in found.shape)
            kinds: tuple[type, ...] = ()
            if isinstance(found, InputType) and is_single:
                kinds = (bool,) if found.dtype is DType.BOOL else (int, float) if found.dtype.is_numeric else (str,)
            if not isinstance(condition.constant, kinds) or (
                isinstance(condition.constant, bool) and bool not in kinds
            ):
                raise InvalidArgument(
                    f"{at}: {each} is {found}, which cannot be compared with {condition.constant!r:.60}"
                )

    def _type(self, at: str, reference: Reference, item: ValueType | None) -> ValueType | None:
        found = item if reference.source == ITEM else self._sources[reference.source]
        name = reference.field
        if name is None or found is None:
            return found
        field = next((one for one in found.fields if one.name == name), None) if isinstance(found, RecordType) else None
        if field is not None:
            return field.type
        if name == CONFIDENCE and reference.source not in (QUERY, ITEM):
            return _CONFIDENCE
        known = (
            f"its fields are {', '.join(found.names)}"[:300] if isinstance(found, RecordType) else "it has no fields"
        )
        raise InvalidArgument(f"{at}: {reference.source} is {str(found)[:200]} and has no {name!r:.100}: {known}")


def _output(node: Node, of_application: ValueType | None) -> ValueType | None:
    """Return the type of a step's output: of a list of answers, if it is asked for each element of a list."""
    if node.for_each is None or of_application is None:
        return of_application
    if isinstance(of_application, RecordType) or not of_application.dtype.is_numeric:
        return None
    return InputType(of_application.dtype, (None, *of_application.shape))


def _check(at: str, found: _Found, wanted: ValueType) -> None:
    if None in found:
        for of_all in found[None]:
            if of_all is not None and not _may_be(of_all, wanted):
                raise InvalidArgument(f"{at}: it is {str(of_all)[:200]}: expected {str(wanted)[:200]}")
        return
    if not isinstance(wanted, RecordType):
        raise InvalidArgument(f"{at}: it has the fields {', '.join(map(str, found))}: expected {wanted}")
    fields = {field.name: field for field in wanted.fields}
    for name, types in found.items():
        field = fields.get(name or "")
        if field is None:
            names = ", ".join(fields)
            raise InvalidArgument(f"{at}: the application has no field {name!r:.100}: its fields are {names[:300]}")
        for of_field in types:
            if of_field is not None and not _may_be(of_field, field.type):
                raise InvalidArgument(f"{at}.{name}: it is {str(of_field)[:200]}: expected {field.type}")
    if missing := [name for name, field in fields.items() if name not in found and field.is_required]:
        raise InvalidArgument(f"{at}: the fields {', '.join(missing)[:300]} are missing: the application needs them")


def _may_be(came: ValueType, wanted: ValueType) -> bool:
    """Whether some value of the first type is converted to the second: see ``values/outputs/conversion.py``."""
    if isinstance(came, RecordType) and isinstance(wanted, RecordType):
        of_name = {field.name: field for field in came.fields}
        are_known = of_name.keys() <= set(wanted.names)
        return are_known and all(
            _may_be(of_name[field.name].type, field.type) if field.name in of_name else not field.is_required
            for field in wanted.fields
        )
    # The only value of a record is also taken without its name.
    if isinstance(came, RecordType):
        came = _only(came.fields) or came
    if isinstance(wanted, RecordType):
        wanted = _only(wanted.fields) or wanted
    if isinstance(came, RecordType) or isinstance(wanted, RecordType):
        return False
    if not (came.dtype.is_numeric and wanted.dtype.is_numeric):
        return came.dtype is wanted.dtype
    return (came.dtype is DType.BOOL) == (wanted.dtype is DType.BOOL) and _has_shape(came.shape, wanted.shape)


def _only(fields: tuple[Field, ...]) -> InputType | None:
    return fields[0].type if len(fields) == 1 else None


def _has_shape(came: Shape, wanted: Shape) -> bool:
    """Whether some shape of the first kind is one of the second, with or without dimensions of length 1."""
    if not came and not wanted:
        return True
    if came and wanted and (None in (came[0], wanted[0]) or came[0] == wanted[0]) and _has_shape(came[1:], wanted[1:]):
        return True
    if came and came[0] in (1, None) and _has_shape(came[1:], wanted):
        return True
    return bool(wanted) and wanted[0] in (1, None) and _has_shape(came, wanted[1:])
