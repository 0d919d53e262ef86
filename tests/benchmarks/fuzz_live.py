"""``python -m tests.benchmarks.fuzz_live --inputs 1000000``: sends a running server what nobody should send.

Inputs are made of their numbers alone, as those of ``make fuzz`` are. Many leave in one write, on a few connections,
so that a core sends and answers some thousands a second.
"""

import argparse
import asyncio
import contextlib
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random, SystemRandom
from typing import Literal, cast

import uvloop
from msgspec import UNSET

from benchmarks.harness.servers import ClipperServer, clipper
from benchmarks.harness.workbench import HERE
from benchmarks.soak.flatness import trend
from benchmarks.soak.processes import read
from clipper import Clipper
from tests.serving import post
from tests.worker.frontend.fuzz_front import (
    FEATURES,
    KEY,
    TYPES,
    authorization_for,
    garbled_requests,
    observe_body_for,
    predict_body_for,
)

CONNECTIONS = 4
# In one write. Of eight writes one is feedback, which waits for the disk, and one is garbled HTTP, each input on a
# connection of its own.
INPUTS_A_WRITE = 24
WRITES_A_ROUND = 8
# Only a hang meets it.
ANSWER_WITHIN_S = 60.0
# The longest that the worker's loop may compute while a client with a tiny request waits. It is processor time: other
# work of the machine does not count.
MAX_STALL_S = 0.05
PROBE_EVERY_S = 0.05
PROBE = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"
TELL_EVERY_S = 10.0
# A worker's caches are full after a part of that, be the machine slow or not; a shorter run tells how it grew, and does
# not judge it.
JUDGED_FROM_S = 1200.0
JUDGED_FROM_INPUTS = 3_000_000
FEEDBACK_TTL_S = 10.0
START_WITHIN_S = 300.0
ALLOWED = {502, 503, 504}
# For each of these types there is a second application, whose policy uses the features that queries bring.
FEATURED = range(4)

_HEAD = re.compile(rb"HTTP/1\.1 (\d\d\d) [^\r]*\r\n(?:[^\r]+\r\n)*?\r\n")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)

Kind = Literal["predict", "observe", "http"]


class Found(Exception):
    """Something that must not be; the message names the input."""


@dataclass(frozen=True, slots=True)
class Group:
    """The inputs that leave in one write, of the numbers from ``first`` on."""

    first: int
    kind: Kind
    requests: list[bytes]


def make_group(first: int, key: str = KEY) -> Group:
    """``key``: one that the application ``keyed`` takes."""
    kinds: dict[int, Kind] = {0: "http", 1: "observe"}
    kind = kinds.get(first // INPUTS_A_WRITE % WRITES_A_ROUND, "predict")
    requests = []
    for number in range(first, first + INPUTS_A_WRITE):
        random = Random(number)
        if kind == "http":
            request = garbled_requests(random).replace(b"/echo/", b"/a0/")
            if random.random() < 0.3:
                request = request.replace(b"/a0/", b"/keyed/")
                request = request.replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\n" + authorization_for(random, key))
            requests.append(request)
        else:
            index = random.randrange(len(TYPES))
            make = predict_body_for if kind == "predict" else observe_body_for
            brings_features = random.random() < 0.2
            body = make(random, TYPES[index], brings_features=brings_features)
            if brings_features and index in FEATURED and random.random() < 0.8:
                requests.append(post(f"/featured{index}/{kind}", body))
            elif random.random() < 0.1:  # who is refused for a key loses the connection, and so is garbled HTTP
                requests.append(post(f"/keyed/{kind}", body, Authorization=f"Bearer {key}"))
            else:
                requests.append(post(f"/{'limited' if random.random() < 0.1 else f'a{index}'}/{kind}", body))
    return Group(first, kind, requests)


class Answers(asyncio.Protocol):
    """The answers on one connection; ``ended`` once as many have come as are wanted, or it has gone."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.got: list[tuple[int, bytes]] = []
        self._wanted = 0
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def ask(self, data: bytes, wanted: int) -> None:
        if self.transport.is_closing():
            raise Found("the server closed a connection of which it had answered all")
        self.ended.clear()
        self.got, self._wanted, self._data = [], wanted, b""
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        self._data += data
        at = 0
        while head := _HEAD.match(self._data, at):
            length = _LENGTH.search(head[0])
            end = head.end() + (int(length[1]) if length else 0)
            if end > len(self._data):
                break
            if head[1] != b"100":
                self.got.append((int(head[1]), self._data[head.end() : end]))
            at = end
        self._data = self._data[at:]
        if len(self.got) >= self._wanted:
            self.ended.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.ended.set()


class Fuzz:
    """Sends inputs to a worker until it has sent so many, the time is over, or something is found.

    Attributes:
        sent: inputs that were answered, or are not to be.
        statuses: of the answers, by kind.
    """

    def __init__(
        self, address: tuple[str, int], pid: int, first: int, inputs: int, seconds: float, key: str = KEY
    ) -> None:
        self._address, self._pid, self._key = address, pid, key
        self._next, self._end = first, first + inputs
        self._began_s = time.monotonic()
        self._seconds = seconds
        self.sent = 0
        self.statuses: Counter[str] = Counter()
        self.longest_stall_s = 0.0
        self._open: set[Answers] = set()
        self._resident: list[tuple[float, float]] = []

    async def run(self) -> None:
        """
        Raises:
            ExceptionGroup: of ``Found``.
        """
        try:
            async with asyncio.TaskGroup() as group:
                beside = [group.create_task(each) for each in (self._probe(), self._watch())]
                await asyncio.wait([group.create_task(self._send()) for _ in range(CONNECTIONS)])
                for task in beside:
                    task.cancel()
        finally:
            for answers in self._open:
                answers.transport.abort()

    async def _connect(self) -> Answers:
        _, answers = await asyncio.get_running_loop().create_connection(Answers, *self._address)
        self._open.add(answers)
        return answers

    async def _send(self) -> None:
        answers = await self._connect()
        while self._next < self._end and time.monotonic() - self._began_s < self._seconds:
            group = make_group(self._next, self._key)
            self._next += INPUTS_A_WRITE
            if group.kind == "http":
                for number, request in enumerate(group.requests, group.first):
                    await self._send_garbled(number, request)
            else:
                answers.ask(b"".join(group.requests), len(group.requests))
                await self._wait(answers, f"inputs from {group.first} on")
                if len(answers.got) != len(group.requests):
                    raise Found(f"{len(answers.got)} answers to {INPUTS_A_WRITE} inputs from {group.first} on")
                for number, answer in enumerate(answers.got, group.first):
                    self._check(number, group.kind, *answer)
            self.sent += len(group.requests)

    async def _send_garbled(self, number: int, request: bytes) -> None:
        """On a connection of its own, which the server has to close as we do, whatever it makes of it."""
        answers = await self._connect()
        answers.ask(request, sys.maxsize)
        answers.transport.write_eof()
        await self._wait(answers, f"input {number}")
        answers.transport.abort()
        self._open.discard(answers)
        for answer in answers.got:
            self._check(number, "http", *answer)

    async def _wait(self, answers: Answers, what: str) -> None:
        try:
            # Not wait_for, which in Python 3.11 may lose a cancellation: then the probe would go on for ever.
            async with asyncio.timeout(ANSWER_WITHIN_S):
                await answers.ended.wait()
        except TimeoutError:
            raise Found(f"no answer within {ANSWER_WITHIN_S:.0f} s: {what}") from None

    def _check(self, number: int, kind: Kind, status: int, body: bytes) -> None:
        self.statuses[f"{kind} {status}"] += 1
        if status >= 500 and not (status in ALLOWED and b'"error":"' in body and b'"cause":"' in body):
            raise Found(f"input {number} of kind {kind} was answered {status}: {body[:500]!r}")

    async def _probe(self) -> None:
        """Ask for next to nothing, again and again."""
        answers = await self._connect()
        while True:
            await asyncio.sleep(PROBE_EVERY_S)
            before_s = loop_cpu_s(self._pid)
            answers.ask(PROBE, 1)
            await self._wait(answers, "a health check")
            took_s = loop_cpu_s(self._pid) - before_s
            self.longest_stall_s = max(self.longest_stall_s, took_s)
            if took_s > MAX_STALL_S:
                raise Found(f"the loop was held for {took_s * 1e3:.0f} ms, by inputs before {self._next}")

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(TELL_EVERY_S)
            at_s = time.monotonic() - self._began_s
            resident = read(self._pid, at_s)[0].rss
            self._resident.append((at_s, resident))
            print(
                f"{self.sent:,} inputs, {self.sent / at_s:,.0f}/s, the worker has {resident / 1e6:.1f} MB, "
                f"the loop was held for {self.longest_stall_s * 1e3:.0f} ms at most",
                flush=True,
            )

    def judge_growth(self) -> None:
        """
        Raises:
            Found: the run was long, and the worker's memory has a trend.
        """
        found = trend(self._resident, time.monotonic() - self._began_s)
        if found is None:
            return
        text = f"the worker's memory grew by {found.growth / 1e6:.1f} MB at {found.level / 1e6:.1f} MB"
        print(text)
        is_long = self._resident[-1][0] > JUDGED_FROM_S and self.sent > JUDGED_FROM_INPUTS
        if is_long and not found.is_flat():
            raise Found(text)


def loop_cpu_s(pid: int) -> float:
    """The processor time of the process's first thread, which runs its loop."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


def set_up(server: ClipperServer) -> str:
    """An application of each type, whose model answers what it is asked; every second has no default.

    One more has limits, and one asks for a key, which is returned.
    """
    with contextlib.chdir(HERE / "models"), Clipper.connect(home=server.home) as client:
        for index, name in enumerate(TYPES):
            client.deploy(f"m{index}", "soaked:echo", input_type=name, wait=False)
        for index in range(len(TYPES)):
            client.wait_until_ready(f"m{index}", "1", START_WITHIN_S)
            client.create_application(
                f"a{index}",
                model=f"m{index}",
                policy="exp3",
                default_output=UNSET if index % 2 else 0,
                feedback_ttl_s=FEEDBACK_TTL_S,
            )
        for index in FEATURED:
            client.create_application(
                f"featured{index}",
                model=[f"m{index}"],
                policy="linucb",
                features=FEATURES,
                feedback_ttl_s=FEEDBACK_TTL_S,
            )
        client.create_application("limited", model="m0", max_in_flight=8, max_per_second=500)
        client.create_application("keyed", model="m0", require_key=True)
        return client.create_key("fuzz", applications=["keyed"], max_in_flight=16).key


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz_live", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument(
        "--first", type=int, default=SystemRandom().randrange(1 << 40), help="number of the first input"
    )
    arguments = parser.parse_args()
    a_round = INPUTS_A_WRITE * WRITES_A_ROUND
    first = arguments.first // a_round * a_round
    print(f"the first input has number {first}", flush=True)
    with clipper("--cache-size", "16MiB", "--max-contexts", "1000") as server:
        key = set_up(server)
        before = server.run("status")["workers"]
        fuzz = Fuzz(server.query_address(), before[0]["pid"], first, arguments.inputs, arguments.seconds, key)
        try:
            uvloop.run(fuzz.run())
        finally:
            log = (server.home / "logs" / "worker-0.log").read_text()
            print(f"{fuzz.sent:,} inputs; {dict(fuzz.statuses.most_common())}")
            print(log[-3000:])
        after = server.run("status")["workers"]
        fuzz.judge_growth()
    if before[0]["pid"] != after[0]["pid"] or "Traceback" in log:
        raise Found(f"the worker did not stay as it was: {before}, {after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
