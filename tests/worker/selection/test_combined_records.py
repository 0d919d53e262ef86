"""An answer of several models whose outputs have names."""

from clipper.values.outputs.output import OutputNames, RecordOutput, make_record
from clipper.worker.selection.combined_records import combined_record


def record(**parts: bytes) -> RecordOutput:
    return make_record(OutputNames(tuple(parts)), tuple(parts.values()))


def test_each_value_is_combined_by_itself() -> None:
    outputs = {
        "a": record(price=b"1.0", label=b'"cheap"', odds=b"[1.0,0.0]"),
        "b": record(price=b"3.0", label=b'"dear"', odds=b"[0.0,1.0]"),
    }
    answer = combined_record(("a", "b", "late"), (0.25, 0.5, 0.25), outputs, b"2.5", {"a": b"1.0", "b": b"3.0"})
    assert bytes(answer) == b'{"price":2.5,"label":"dear","odds":[0.3333333333333333,0.6666666666666666]}'


def test_a_model_with_other_names_only_has_a_say_in_the_policys_value() -> None:
    outputs = {"a": record(price=b"1.0", odds=b"0.5"), "b": record(price=b"3.0")}
    answer = combined_record(("a", "b"), (0.5, 0.5), outputs, b"2.0", {"a": b"1.0", "b": b"3.0"})
    assert bytes(answer) == b'{"price":2.0,"odds":0.5}'
