"""Uploads and deployments of ``make fuzz``: tars and model files that are nearly right, each made of a number alone."""

import hashlib
import io
import os
import pickle
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import numpy as np
from sklearn.linear_model import LogisticRegression

from tests.fuzz_management import Calling
from tests.supervisor.live_server import Server, with_application
from tests.waiting import until
from tests.worker.frontend.mutations import mutated, random_edits

MAX_GROWTH_BYTES = 64 * 1024**2
TAR_FRAGMENTS = [b"ustar\x0000", b"ustar  \0", b"../", b"/", b"\0" * 512, b"x", b"L", b"K", b"g", b"2", b"1"]
TAR_FRAGMENTS += [
    b"\x80" + b"\xff" * 11,
    b"30 path=../../../outside\n",
    b"20 size=99999999999\n",
    b"\xff",
    b"7777777\0",
]
PICKLE_FRAGMENTS = [b".", b"(", b"R", b"\x81", b"\x8c\x05numpy", b"cos\nnothing\n", b"\x94", b"h\x00", b"N", b"K\x00"]
PICKLE_FRAGMENTS += [
    b"\x8e" + b"\xff" * 8,
    b"]",
    b"}",
    b"\x93",
    b"j\xff\xff\xff\x7f",
    b"B\xff\xff\xff\x7f",
    b"\x80\x09",
]


def a_tar(random: Random) -> bytes:
    """One with files, folders, links and long names, in one of the formats."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=random.choice([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])) as tar:
        for name in ("code/my_model.py", "data/" + "n" * 120, "data/é", "data/program"):
            entry = tarfile.TarInfo(name)
            entry.size = random.randrange(600)
            tar.addfile(entry, io.BytesIO(bytes(entry.size)))
        for kind, name, target in ((tarfile.SYMTYPE, "data/s", "program"), (tarfile.LNKTYPE, "data/h", "data/program")):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = kind, random.choice([target, "../" + target, "../../outside", "x" * 200])
            tar.addfile(entry)
    return file.getvalue()


def a_tar_of(name: str, data: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    return file.getvalue()


class Uploading:
    """A server that answers from an honest model."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._model = LogisticRegression().fit(np.eye(2), [0, 1])
        self.attempt_tar(0)
        self._around = sorted(server.home.parent.iterdir())
        self._descriptors, self._resident_bytes = self._held()

    def attempt_tar(self, number: int) -> None:
        random = Random(number)
        tar = a_tar(random)
        if random.random() < 0.9:
            tar = mutated(tar, random_edits(random, TAR_FRAGMENTS))
        digest = hashlib.sha256(tar).hexdigest()
        answer = self.server.ask("PUT", f"/artifacts/{digest}", tar, "application/x-tar")
        assert answer.status_code in (200, 201, 400), answer.text
        assert (self.server.home / "artifacts" / digest).exists() == answer.is_success
        assert not list((self.server.home / "artifacts").glob(".incoming*"))

    def attempt_model_file(self, number: int) -> None:
        random = Random(number)
        name, framework, data = random.choice(
            [
                ("model.pkl", "pickle", pickle.dumps(self._model, protocol=random.randrange(6))),
                ("model.joblib", "pickle", pickle.dumps({"model": self._model})),
                ("model.onnx", "onnx", b"\x08\x08\x12\x07skl2onnx" + random.randbytes(200)),
                ("model.txt", "lightgbm", b"tree\nversion=v4\nnum_class=1\nmax_feature_idx=1\n"),
                ("model.json", "xgboost", b'{"learner":{"gradient_booster":{}},"version":[2,0,0]}'),
            ]
        )
        data = mutated(data, random_edits(random, PICKLE_FRAGMENTS))
        tar = a_tar_of(name, data)
        digest = hashlib.sha256(tar).hexdigest()
        assert self.server.ask("PUT", f"/artifacts/{digest}", tar, "application/x-tar").is_success
        spec = {"artifact": digest, "loader": "file", "target": name, "framework": framework, "memory_bytes": 1 << 30}
        spec["start_timeout_s"] = 20
        version = self.server.call("POST", "/models/broken/versions", {**spec, "input_type": "float64[2]"})["version"]
        decided = self.server.decided("broken", version)
        assert decided["state"] == "ready" or len(decided["last_error"]) > 20, decided
        assert self.server.predict("app", [1.0, 2.0])["output"] == "one"
        self.server.call("DELETE", "/models/broken")

    def check_unharmed(self) -> None:
        process = self.server.process
        assert process is not None and process.poll() is None, self.server.log
        assert "Traceback" not in self.server.log
        assert self.server.call("GET", "/status")["ready"]
        assert sorted(self.server.home.parent.iterdir()) == self._around
        # It opens its store when it needs it, and looks through /proc now and then: of thousands of tries none is more.
        until(lambda: self._held()[0] <= self._descriptors + 6)
        assert self._held()[1] - self._resident_bytes < MAX_GROWTH_BYTES

    def _held(self) -> tuple[int, int]:
        """Descriptors and resident bytes of the supervisor."""
        assert self.server.process is not None
        process = Path(f"/proc/{self.server.process.pid}")
        resident_pages = int((process / "statm").read_text().split()[1])
        return len(list((process / "fd").iterdir())), resident_pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def serving() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        server = Server(Path(folder) / "home")
        try:
            yield with_application(server)
        finally:
            server.clean_up()


@contextmanager
def uploading() -> Iterator[tuple[dict[str, Callable[[int], None]], Callable[[], None]]]:
    """Tries by their names, and what has to hold after them."""
    with serving() as server:
        one, calling = Uploading(server), Calling(server)
        yield (
            {"call": calling.attempt, "tar": one.attempt_tar, "model file": one.attempt_model_file},
            one.check_unharmed,
        )
