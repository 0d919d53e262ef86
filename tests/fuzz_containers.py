"""The container of ``make fuzz``: it answers batches wrongly, in a way that is made of a number alone."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from clipper.settings.version import Batching
from tests.serving import SUM, Serving, application, model, serving, version
from tests.waiting import until

SLO_MS = 100.0
# Far more than any machine needs on top: an answer that comes later does not come by its deadline at all.
LATE_S = 5.0
# Of a worker that has got all of what containers can say; what it keeps of them would be more with each try.
MAX_GROWTH_BYTES = 48 * 1024**2
NEWER = "send(WELCOME, 0, welcome.replace(b'\"protocol\": 1', b'\"protocol\": 2'))"
# A container runs this instead of answering a batch. The batch's last input is the seed of the lie.
LIE = r"""
import random, time
number = int(struct.unpack('<d', body[-8:])[0])
r = random.Random(number)
TEXTS = [b'1', b'1', b'1', b'"x"', b'[1,2]', b'NaN', b'nan', b'-Infinity', b'1e999', b'', b'null', b'-', b'"', b'\xff']
TEXTS += [b'1}', b'"\\ud800"', b'9' * 4000, b'[' * 5000, b'{"a":1,"a":2}', b'\0', b'1 2', b'{"a":', b' ', b'"\xff"']
TEXTS += [b'"' + b'x' * 70000 + b'"']
declared = sent = 0

def results():
    count = r.choice([rows] * 6 + [0, 1, rows + 1, 2 ** 32 - 1])
    failures = r.choice([0] * 6 + [1, rows, rows + 1, 2 ** 32 - 1])
    told = struct.pack('<IIQ', count, failures, r.choice([5, 0, 2 ** 64 - 1]))
    for _ in range(min(failures, 3)):
        text = r.choice([b'x', b'', b'\xff', b'y' * 5000])
        row, size = r.choice([0, rows - 1, rows, 2 ** 32 - 1]), r.choice([len(text)] * 4 + [0, 2 ** 32 - 1])
        told += struct.pack('<II', row, size) + text
    return told + b'\n'.join(r.choice(TEXTS) for _ in range(min(count, rows + 1)))

def typed():
    dtype = r.choice([3] * 6 + [1, 2, 4, 5, 6, 7, 8, 0, 255])
    written = r.choice([dtype] * 6 + [4, 0])
    shape = r.choice([(), (2,), (2,), (1, 3), (1,) * 8, (1,) * 9, (0,), (2 ** 32 - 1,) * 7, (65536, 65536), (70000,)])
    dimensions = r.choice([len(shape)] * 8 + [200])
    count = r.choice([rows] * 6 + [0, 1, rows + 1, 2 ** 32 - 1])
    failures = r.choice([0] * 6 + [1, rows, 2 ** 32 - 1])
    size = count * {1: 4, 2: 8, 3: 4, 4: 8}.get(dtype, 1)
    for length in shape:
        size *= length
    data = (r.choice([b'\0', b'\1', b'\xff']) * 1000000)[: min(size, 1000000)]
    data = r.choice([data] * 6 + [data[:-1], data + b'\0', b''])
    lengths = b''.join(struct.pack('<I', each) for each in shape) + bytes(len(shape) % 2 * 4)
    told = struct.pack('<IIQBBBBI', count, failures, 5, dtype, written, dimensions, r.choice([0] * 8 + [1]), 0)
    text = r.choice([b'x', b'\xff', b'y' * 5000])
    failed = struct.pack('<II', r.choice([0, rows - 1, rows]), len(text)) + text if failures else b''
    return told + lengths + data + failed

def honest():
    return struct.pack('<IIQ', rows, 0, 5) + b'\n'.join([b'1'] * rows)

def frame(kind, number, payload, size=None, flags=0, more=0):
    global declared, sent
    size = len(payload) if size is None else size
    declared, sent = declared + size, sent + len(payload)
    return struct.pack('<IBBHQ', size, kind, flags, more, number) + payload

moves = []
for _ in range(r.randint(1, 4)):
    id_ = r.choice([batch] * 6 + [batch + 1, 0, 2 ** 64 - 1, r.randrange(2 ** 64)])
    kind = r.choice([RESULTS] * 6 + [TYPED_RESULTS] * 4 + [ERROR, ERROR, WELCOME, 1, 3, 6, 7, 8, 99, 255, 0])
    any_ = lambda: r.choice([r.randbytes(r.randint(0, 60)), welcome, b''])
    payload = r.choice([typed, typed, any_] if kind == TYPED_RESULTS else [results, results, honest, any_])()
    size = r.choice([None] * 8 + [0, len(payload) + 1, max(0, len(payload) - 1), 2 ** 30, 2 ** 31, 2 ** 32 - 1])
    data = frame(kind, id_, payload, size, r.choice([0] * 12 + [1, 255]), r.choice([0] * 12 + [1, 65535]))
    if r.random() < 0.1:
        data = r.randbytes(r.randint(1, 40))
    if r.random() < 0.1:
        data = data[: r.randrange(len(data) + 1)]
        declared += 1
    moves.append(data)
for data in moves:
    if len(data) < 200 and r.random() < 0.2:
        for at in range(len(data)):
            raw(data[at : at + 1])
            time.sleep(0.0002)
    else:
        raw(data)
if r.random() < 0.1:
    raw(frame(RESULTS, batch, honest()) * 2000)
if declared != sent or r.random() < 0.1:
    # What it has begun does not end: so that the next try is one of its own.
    time.sleep(r.choice([0, 0.15]))
    hang_up()
"""


class Lying:
    """A worker with an honest container and a liar."""

    def __init__(self, system: Serving) -> None:
        self.system = system
        self.worker = system.start_worker(settle_timeout_s=1.0)
        honest = model(version(system.start_container(SUM, "honest")), name="honest")
        self._liar = system.start_liar(NEWER, LIE)
        lying = model(version(self._liar, batching=Batching("fixed", 4)))
        applications = [application("app", slo_ms=SLO_MS), application("honest", "honest")]
        until(lambda: system.apply(applications, [honest, lying]).unlinked == {})
        for number in range(30):  # so that all is there that is ever needed
            self.attempt(number)
        # The store is written to for the first time some seconds after the start, over a connection of its own.
        with self.worker.connect() as client:
            assert client.ask("/honest/observe", {"input": [1.0, 2.0], "label": 3}).status == 200
        self._descriptors, self._resident_bytes = self._held()

    def attempt(self, number: int) -> None:
        rows = [[float(number)]] * (1 + number % 3)
        asked_s = time.monotonic()
        with self.worker.connect() as client:
            parts = client.ask("/app/predict", {"input_batch": rows}).json["batch_predictions"]
            assert time.monotonic() - asked_s < SLO_MS / 1000 + LATE_S
            assert len(parts) == len(rows)
            codes = {part.get("error", "answered") for part in parts}
            assert codes <= {"answered", "model_error", "no_replica", "output_too_large", "timeout"}, parts
            assert client.ask("/honest/predict", {"input": [1.0, 2.0]}).json["output"] == 3

    def check_unharmed(self) -> None:
        assert self.worker.is_running, self.worker.log
        assert "Traceback" not in self.worker.log
        assert self._liar.is_running, self._liar.log
        until(lambda: abs(self._held()[0] - self._descriptors) <= 1)
        assert self._held()[1] - self._resident_bytes < MAX_GROWTH_BYTES

    def _held(self) -> tuple[int, int]:
        """Descriptors and resident bytes of the worker."""
        process = Path(f"/proc/{self.worker.pid}")
        resident_pages = int((process / "statm").read_text().split()[1])
        return len(list((process / "fd").iterdir())), resident_pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def lying() -> Iterator[tuple[dict[str, Callable[[int], None]], Callable[[], None]]]:
    """Tries by their names, and what has to hold after them."""
    with serving() as system:
        one = Lying(system)
        yield {"container": one.attempt}, one.check_unharmed
