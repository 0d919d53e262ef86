"""Answers as messages, as protobuf reads them."""

from itertools import product

import numpy as np
import pytest
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

from clipper.values.output_arrays import OutputForm, TypedResults
from clipper.values.outputs.conversion import Conversion
from clipper.values.outputs.output import TypedOutput, read_outputs
from clipper.values.records import parse_type
from clipper.values.types import DType
from clipper.worker.frontend.inference.answers import Answer
from clipper.worker.frontend.inference.output_tensors import OutputTensors
from clipper.worker.frontend.inference.requests import AnswerForm
from clipper.worker.frontend.long_work import done
from clipper.worker.frontend.rpc import protocols
from clipper.worker.frontend.rpc.answers import MAX_ARRAYS, MAX_OPENINGS, MessageCodec
from clipper.worker.frontend.rpc.reflection import describe
from clipper.worker.selection.query import NO_SOURCE, make_source
from tests.worker.frontend.rpc.rpc_messages import InferResponse

NUMBERS = np.array([[1.1, -2.5], [3e9, 0.0]], np.float32)


def typed(text: str) -> OutputTensors:
    return OutputTensors(Conversion(parse_type(text)))


FLOATS, NUMBER = typed("float32[2]"), typed("float64[]")


def outputs(array: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]") -> list[TypedOutput]:
    form = OutputForm(DType.FLOAT32, array.shape[1:], DType.FLOAT64)
    found, failures = read_outputs(TypedResults(form, len(array), memoryview(array.tobytes()), 5, {}))
    assert not failures
    return [output for output in found if output is not None]


def answers(array: "np.ndarray[tuple[int, ...], np.dtype[np.float32]]") -> list[Answer]:
    return [Answer(number, output, 1.0) for number, output in enumerate(outputs(array))]


def form(is_raw: bool) -> AnswerForm:
    return AnswerForm((("output", is_raw),))


@pytest.mark.parametrize("is_raw", [True, False])
def test_arrays_of_several_rows(is_raw: bool) -> None:
    codec = MessageCodec("app")
    message = InferResponse.FromString(b"".join(done(codec.encode(False, "1", answers(NUMBERS), form(is_raw), FLOATS))))
    (output,) = message.outputs
    assert (output.datatype, list(output.shape)) == ("FP32", [2, 2])
    if is_raw:
        assert list(message.raw_output_contents) == [NUMBERS.tobytes()]
    else:
        assert np.array_equal(np.array(output.contents.fp32_contents, np.float32), NUMBERS.ravel())


def test_the_usual_array_is_the_message_that_any_is() -> None:
    codec = MessageCodec("app")
    sources = NO_SOURCE, make_source(["a:2"]), make_source(["a:2", "b:1"])
    arrays = (NUMBERS[:1], FLOATS), (NUMBERS[:1].reshape(1, 1, 2), typed("float32[1,2]"))
    for (array, tensors), source in product(arrays, sources):
        for answer in [each._replace(source=source) for each in answers(array)]:
            usual = codec.usual(False, None, (answer,), form(True), tensors)
            assert usual is not None
            whole = b"".join(done(codec.encode(False, None, [answer], form(True), tensors)))
            assert InferResponse.FromString(usual) == InferResponse.FromString(whole)
            assert codec.usual(False, None, (answer,), form(False), tensors) is None


def test_a_confidence_is_a_number_and_to_clients_without_doubles_a_text() -> None:
    codec = MessageCodec("app")
    answer = Answer(1, b"1.5", 0.75)
    usual = codec.usual(False, None, (answer,), form(True), NUMBER)
    whole = b"".join(done(codec.encode(False, None, [answer], form(False), NUMBER)))
    assert usual is not None
    # KServe's own, without the fields of a number that is not whole.
    own = descriptor_pb2.FileDescriptorProto.FromString(describe(protocols.OPEN_INFERENCE))  # type: ignore[no-untyped-call]
    (parameter,) = (each for each in own.message_type if each.name == "InferParameter")
    del parameter.field[3:]
    pool = DescriptorPool()
    pool.Add(own)  # type: ignore[no-untyped-call]
    of_kserve = GetMessageClass(pool.FindMessageTypeByName("inference.ModelInferResponse"))  # type: ignore[no-untyped-call]
    for message in (usual, whole):
        assert InferResponse.FromString(message).parameters["confidence"].double_param == 0.75
        assert of_kserve.FromString(message).parameters["confidence"].string_param == "0.75"


def test_a_model_that_varies_its_shape_fills_no_memory() -> None:
    codec = MessageCodec("app")
    for length in range(1, 3 * MAX_ARRAYS):
        (answer,) = answers(np.zeros((1, length), np.float32))
        usual = codec.usual(False, None, (answer,), form(True), typed("float32[*]"))
        assert usual is not None and list(InferResponse.FromString(usual).outputs[0].shape) == [1, length]
    assert len(codec._arrays) <= MAX_ARRAYS


def test_openings_for_every_subset_of_an_ensemble_fill_no_memory() -> None:
    codec = MessageCodec("app")
    for number in range(MAX_OPENINGS + 10):
        answer = Answer(1, b"1.5", 1.0, None, make_source([f"a:{number}"]))
        usual = codec.usual(False, None, (answer,), form(True), NUMBER)
        assert usual is not None and InferResponse.FromString(usual).model_version == str(number)
    assert len(codec._openings) == 10
