"""Strangers' requests to the query port, on real sockets: others are answered meanwhile, and memory stays bounded."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from clipper.worker.frontend import limits
from tests.serving import SUM, Client, Serving, application, memory_bytes, model, post, serving, version
from tests.waiting import until
from tests.worker.frontend.costly_bodies import COSTLY, Costly

pytestmark = pytest.mark.alone

# The longest that other clients may wait: their objective. A busy machine makes them wait as well, so the best of some
# tries counts, and may exceed their wait without large requests by the objective.
OBJECTIVE_S = 0.05
TRIES = 8
LARGE_BYTES = 10_000_000
LARGE = f"def predict(inputs):\n    return ['x' * {LARGE_BYTES}] * len(inputs)\n"
TYPES = sorted({case.input_type for case in COSTLY})
SCALAR = "def predict(inputs):\n    return [1] * len(inputs)\n"


@pytest.fixture(scope="module")
def system() -> Iterator[Serving]:
    with serving() as system:
        system.start_worker()
        total, large = system.start_container(SUM), system.start_container(LARGE, "large")
        # Nothing answers for these, so that what is read of them is all that they cost.
        typed = [application(f"t{number}", "none", input_type=each) for number, each in enumerate(TYPES)]
        applications = [
            application("sum"),
            application("late", "none-late", slo_ms=100.0),
            application("large", "large"),
        ]
        models = [model(version(total)), model(version(large, cache=True), name="large")]
        assert system.apply([*applications, *typed], models).unlinked == {}
        yield system


class Pinging:
    """Asks another application all the time, and keeps for how long it had to wait at most."""

    def __init__(self, system: Serving) -> None:
        self._system = system
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.longest_s = 0.0
        self.answers = 0

    def __enter__(self) -> "Pinging":
        self._thread.start()
        until(lambda: self.answers > 3)
        return self

    def __exit__(self, *_: object) -> None:
        answers = self.answers
        until(lambda: self.answers > answers + 1)
        self._is_over.set()
        self._thread.join()

    def _ask(self) -> None:
        with self._system.worker.connect() as client:
            while not self._is_over.is_set():
                started_s = time.perf_counter()
                answer = client.ask("/sum/predict", {"input": [1, 2, self.answers]}).json
                assert answer["output"] == 3 + self.answers
                self.longest_s = max(self.longest_s, time.perf_counter() - started_s)
                self.answers += 1


def idle_wait_s(system: Serving) -> float:
    """For how long others wait while nobody asks for anything large."""
    with Pinging(system) as others:
        until(lambda: others.answers > 200)
    return others.longest_s


def peak_bytes(pid: int) -> int:
    """The most resident memory since ``forget_peak``."""
    line = next(each for each in Path(f"/proc/{pid}/status").read_text().splitlines() if each.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def forget_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def path_of(case: Costly) -> str:
    return f"/t{TYPES.index(case.input_type)}/{case.action}"


# Of each kind one: what each costs in a step is measured where its reader is tested.
KINDS = ["a float after integers", "floats that are integers", "short floats", "hard floats", "lists of one", "escapes"]
KINDS += ["base64", "batch of lists", "keys", "observations", "an observed input", "what is not known"]


@pytest.mark.parametrize("case", [case for case in COSTLY if case.name in KINDS], ids=str)
def test_others_are_answered_while_the_worst_is_read(system: Serving, case: Costly) -> None:
    body = case.of(limits.MAX_BODY_BYTES // 8 if "hard" in case.name else limits.MAX_BODY_BYTES)
    request = post(path_of(case), body)
    pid = system.worker.pid
    longest_s = grown_bytes = float("inf")
    for _ in range(TRIES):
        before_bytes = memory_bytes(pid)
        forget_peak(pid)
        with Pinging(system) as others, system.worker.connect() as client:
            client.send(request)
            response = client.read()
        assert response.status in (200, 400, 404, 503), response.body[:200]
        assert response.status != 503 or response.json["error"] == "no_replica"
        longest_s = min(longest_s, others.longest_s)
        grown_bytes = min(grown_bytes, peak_bytes(pid) - before_bytes)
        is_prompt = longest_s < OBJECTIVE_S or longest_s < OBJECTIVE_S + idle_wait_s(system)
        if is_prompt and grown_bytes < 4 * len(body) + (10 << 20):
            return
    raise AssertionError(f"others waited {longest_s * 1000:.0f} ms; memory grew by {grown_bytes / 1e6:.0f} MB")


def test_new_clients_are_answered_beside_half_sent_bodies_in_all_memory(system: Serving) -> None:
    part = post("/sum/predict", bytes(limits.MAX_BODY_BYTES))[:-1]
    holders = []
    try:
        for _ in range(limits.MAX_HELD_BYTES // limits.MAX_BODY_BYTES + 2):
            holders.append(system.worker.connect())
            holders[-1].send(part)
        for number in range(3):
            with system.worker.connect() as client:
                assert client.ask("/sum/predict", {"input": [1, 2, number]}).json["output"] == 3 + number
        first = holders[0].read()
        assert (first.status, first.json["error"]) == (503, "overloaded"), "the oldest gave way"
    finally:
        for holder in holders:
            holder.close()


@pytest.mark.parametrize("app", ["sum", "late"])
def test_others_are_answered_beside_a_batch_of_10_000(system: Serving, app: str) -> None:
    request = post(f"/{app}/predict", {"input_batch": [[number] for number in range(10_000)]})
    waits_s = []
    for _ in range(TRIES):
        with Pinging(system) as others, system.worker.connect() as client:
            client.send(request)
            parts = client.read().json["batch_predictions"]
        assert len(parts) == 10_000
        if app == "sum":
            assert [part["output"] for part in parts] == list(range(10_000))
        waits_s.append(others.longest_s)
        if min(waits_s) < 2 * OBJECTIVE_S or min(waits_s) < 2 * OBJECTIVE_S + idle_wait_s(system):
            return
    raise AssertionError(f"others waited {min(waits_s) * 1000:.0f} ms")


def test_many_observations_at_once_take_turns(system: Serving) -> None:
    with system.worker.connect() as client:
        query_id = client.ask("/sum/predict", {"input": [5]}).json["query_id"]
    items = [{"query_id": query_id, "label": 5, "id": f"i{number}"} for number in range(3_000)]
    request = post("/sum/observe", {"observations": items})
    forget_peak(system.worker.pid)
    before_bytes = memory_bytes(system.worker.pid)
    with Pinging(system), system.worker.connect() as one, system.worker.connect() as two:
        for client in (one, two):
            client.send(request * 4)
        for client in (one, two):
            for _ in range(4):
                outcomes = client.read().json["observations"]
                assert len(outcomes) == 3_000
                assert all(each.get("observed") or each["error"] == "overloaded" for each in outcomes)
    assert peak_bytes(system.worker.pid) - before_bytes < 200 << 20


def test_lists_of_feedback_are_read_as_they_are_learned_from(system: Serving) -> None:
    items = [{"input": [number % 50], "label": 1} for number in range(10_000)]
    request = post("/sum/observe", {"observations": items})
    forget_peak(system.worker.pid)
    before_bytes = memory_bytes(system.worker.pid)
    lists = 60
    with Pinging(system), system.worker.connect() as client:
        client.send(request * lists)
        for _ in range(2):
            assert all(each.get("observed") for each in client.read().json["observations"])
        client.reset()
    # All lists' text, and what a few of them take: read, each takes 5 MB.
    assert peak_bytes(system.worker.pid) - before_bytes < lists * len(request) + (64 << 20)


def test_answers_that_are_not_taken_are_bounded_in_bytes(system: Serving) -> None:
    request = post("/large/predict", {"input": [1]})
    with system.worker.connect() as client:
        assert len(client.ask("/large/predict", {"input": [1]}).json["output"]) == LARGE_BYTES
    before_bytes = memory_bytes(system.worker.pid)
    forget_peak(system.worker.pid)
    greedy: list[Client] = []
    try:
        with Pinging(system):
            for _ in range(60):
                client = Client(system.port, receive_buffer_bytes=4096)
                greedy.append(client)
                client.send(request * 3)
            until(lambda: system.worker.statistics().requests_refused.get("overloaded", 0) >= 30)
        assert peak_bytes(system.worker.pid) - before_bytes < limits.MAX_HELD_BYTES + (100 << 20)
    finally:
        for client in greedy:
            client.close()
    until(lambda: memory_bytes(system.worker.pid) < before_bytes + (64 << 20))
    with system.worker.connect() as client:
        # The worker refuses until it has noticed that enough of those clients are gone.
        answer = until(lambda: got if (got := client.ask("/large/predict", {"input": [1]})).status != 503 else None)
        assert len(answer.json["output"]) == LARGE_BYTES


def test_thousands_of_requests_at_once_on_one_connection(system: Serving) -> None:
    request = post("/sum/predict", {"input": "x"})
    with Pinging(system), system.worker.connect() as client:
        client.ask("/sum/predict", {"input": "x"})  # from here on the head is known
        sending = threading.Thread(target=client.send, args=(request * 20_000,))
        sending.start()
        assert all(client.read().status == 400 for _ in range(20_000))
        sending.join()


def test_body_in_chunks_of_a_byte(system: Serving) -> None:
    body = json.dumps({"input": list(range(100_000))}).encode()
    head = b"POST /sum/predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    data = head + b"".join(b"1\r\n%c\r\n" % each for each in body) + b"0\r\n\r\n"
    with Pinging(system), system.worker.connect() as client:
        client.send(data)
        assert client.read().json["output"] == sum(range(100_000))
