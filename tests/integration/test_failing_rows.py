"""One application's bad inputs on a version that another one queries, too."""

from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tests.serving import Client, Serving, application, model, post, serving, version

# Negative inputs are bad, and the error quotes them, as errors of libraries do.
PICKY = """
import time


def predict(inputs):
    time.sleep(0.002)
    for row in inputs:
        if row[0] < 0:
            raise ValueError(f"cannot take {row[0]:.0f}, the secret of its client")
    return [float(row[0]) for row in inputs]
"""
# As containers of other languages do: one bad input fails its batch, with the same words for all.
ALL_FAIL = """
import struct

size = struct.unpack_from("<I", body, 4)[0]
values = [struct.unpack_from("<d", body, len(body) - 8 * (rows - row))[0] for row in range(rows)]
bad = [value for value in values if value < 0]
if bad:
    send(ERROR, batch, f"cannot take {bad[0]:.0f}, the secret of its client".encode())
else:
    lines = b"\\n".join(str(value).encode() for value in values)
    send(RESULTS, batch, struct.pack("<IIQ", rows, 0, 2000) + lines)
"""
# Where the machine is busy, inputs of the application that sent bad ones may not be told apart in the time for it.
NO_TIME = "there was no time to try this input without the others"
ROUNDS, AT_ONCE = 25, 20


def ask(client: Client, name: str, values: list[int]) -> None:
    client.send(b"".join(post(f"/{name}/predict", {"input": [float(value)]}) for value in values))


def picky(system: Serving) -> object:
    return system.start_container(PICKY)


def all_fail(system: Serving) -> object:
    return system.start_liar(on_predict=ALL_FAIL)


@pytest.mark.parametrize("start", [picky, all_fail])
def test_bad_inputs_fail_no_query_of_another_application(start: Callable[[Serving], object]) -> None:
    """Three of ten queries of x are bad; those of y and z come in the same turns of the loop."""
    told_apart = 0
    with serving() as system, ExitStack() as stack:
        system.start_worker()
        replica = start(system)
        apps = [application(name, input_type="float64[*]") for name in ("x", "y", "z")]
        system.apply(apps, [model(version(replica))])  # type: ignore[arg-type]
        clients = {name: stack.enter_context(system.worker.connect()) for name in ("x", "y", "z")}
        for turn in range(ROUNDS):
            values = [turn * AT_ONCE + number + 1 for number in range(AT_ONCE)]
            ask(clients["x"], "x", [-value if number % 10 < 3 else value for number, value in enumerate(values)])
            for name in ("y", "z"):
                ask(clients[name], name, values)
            for name in ("y", "z"):
                answers = [clients[name].read() for _ in values]
                assert [(each.status, each.json.get("output")) for each in answers] == [
                    (200, value) for value in values
                ]
            for number, value in enumerate(values):
                answer = clients["x"].read()
                told = answer.body.decode()
                if NO_TIME in told:
                    assert answer.status == 502 and "cannot take" not in told
                elif number % 10 < 3:
                    assert answer.status == 502
                    assert f"cannot take -{value}, " in told, "the words are its own input's"
                    told_apart += 1
                else:
                    assert (answer.status, answer.json["output"]) == (200, value)
    assert told_apart > 0


def test_a_container_that_fails_whole_batches_fails_no_good_query() -> None:
    with serving() as system, ExitStack() as stack:
        system.start_worker()
        system.apply([application("x", input_type="float64[*]")], [model(version(all_fail(system)))])  # type: ignore[arg-type]
        client = stack.enter_context(system.worker.connect())
        for turn in range(ROUNDS):
            values = [turn * AT_ONCE + number + 1 for number in range(AT_ONCE)]
            ask(client, "x", [-value if number % 10 == 3 else value for number, value in enumerate(values)])
            for number, value in enumerate(values):
                answer = client.read()
                if number % 10 == 3:
                    assert answer.status == 502
                    assert f"cannot take -{value}, " in answer.body.decode(), "the words are its own input's"
                else:
                    assert (answer.status, answer.json["output"]) == (200, value)
