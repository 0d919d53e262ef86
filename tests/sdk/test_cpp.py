"""The C++ SDK's own: the shared vectors, and garbage under the sanitizers."""

import socket
import struct
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper.model.protocol import messages
from clipper.model.protocol.frames import PROTOCOL_VERSION, Kind
from clipper.values.types import DType
from tests.sdk.fuzzing import columns, fuzz
from tests.sdk.programs import HERE, SANITIZED, SDK, VECTORS, compile_cpp, kept, run, running

pytestmark = pytest.mark.long

lengths = st.sampled_from([0, 1, 2, 3, 2**31, 2**32 - 1])


def test_the_codec_agrees_with_the_vectors(cpp_build: Path) -> None:
    assert f"{len(VECTORS)} vectors, 0 wrong" in run(cpp_build / "vectors", *VECTORS)


def test_a_vector_that_differs_is_noticed(cpp_build: Path, tmp_path: Path) -> None:
    changed = (next(path for path in VECTORS if path.stem == "predict_ragged")).read_text()
    (tmp_path / "changed.txt").write_text(changed.replace("row: ffffffff", "row: fffffffe"))
    with pytest.raises(AssertionError, match="differs in a row"):
        run(cpp_build / "vectors", tmp_path / "changed.txt")


def build_sanitized(folder: Path) -> None:
    for source in (SDK / "cpp" / "example" / "sum.cpp", HERE / "acting.cpp", SDK / "cpp" / "test" / "vectors.cpp"):
        compile_cpp(source, folder / source.stem, *SANITIZED)


@pytest.fixture(scope="module")
def sanitized(tools: None) -> Path:
    return kept("sanitized", build_sanitized)


def test_garbage_under_the_sanitizers(sanitized: Path) -> None:
    fuzz(sanitized / "sum", 500)


def test_any_columns_under_the_sanitizers(sanitized: Path) -> None:
    """Of a model that takes just these columns: what is not refused is read."""
    types = "age: float64?, job: string, pixels: uint8[2,2], tokens: int32[*], boxes: float32[*,4], note: bytes?"
    with running(sanitized / "acting", "--input-type", types) as container:

        @given(columns)
        @settings(max_examples=500, deadline=None)
        def send(frame: bytes) -> None:
            with container.caller(greet=False) as caller:
                caller.greet(version=PROTOCOL_VERSION)
                caller.socket.sendall(frame)
                caller.socket.shutdown(socket.SHUT_WR)
                with suppress(EOFError):
                    assert caller.read()[0] in (Kind.RESULTS, Kind.ERROR)

        send()
        assert container.process.poll() is None, container.log


def test_any_dimensions_under_the_sanitizers(sanitized: Path) -> None:
    with running(sanitized / "acting", "--input-type", "float32[2,*]") as container, container.caller() as caller:

        @given(st.lists(st.tuples(lengths, lengths, st.binary(max_size=24)), min_size=1, max_size=3))
        @settings(max_examples=500, deadline=None)
        def send(rows: list[tuple[int, int, bytes]]) -> None:
            encoded = [struct.pack("<2I", first, second) + data for first, second, data in rows]
            caller.socket.sendall(b"".join(messages.encode_predict(1, DType.FLOAT32, 2, encoded)))
            kind, _, _ = caller.read()
            is_good = all(first == 2 and 8 * second == len(data) for first, second, data in rows)
            assert kind == (Kind.RESULTS if is_good else Kind.ERROR)

        send()


def test_invalid_vectors_under_the_sanitizers(sanitized: Path) -> None:
    assert "0 wrong" in run(sanitized / "vectors", *VECTORS)
