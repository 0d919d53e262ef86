"""Environments end to end: built for a version before it starts, by whichever supervisor there is."""

import pickle
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sklearn
from sklearn.linear_model import LinearRegression

from clipper.client import Clipper
from clipper.errors import ContainerFailed
from tests.small_packages import SlowPackage, make_wheel, use_only
from tests.supervisor.live_server import Server, processes_of
from tests.waiting import TIMEOUT_S, until

pytestmark = pytest.mark.long


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where packages come from: versions 1.0 and 2.0 of one, which the server of the test finds, too."""
    folder = tmp_path / "packages"
    folder.mkdir()
    use_only(folder, monkeypatch)
    monkeypatch.setenv("CLIPPER_CACHE", str(tmp_path / "cache"))
    for version in ("1.0", "2.0"):
        make_wheel(folder, "small", version)
    return folder


@pytest.fixture
def clipper(packages: Path, server: Server) -> Iterator[Clipper]:
    with Clipper.connect(home=server.start().home) as clipper:
        yield clipper


def tells_version_of(module: str) -> Callable[[Any], list[str]]:
    def predict(inputs: Any) -> list[str]:
        return [__import__(module).__version__] * len(inputs)

    return predict


SMALL = tells_version_of("small")


def test_versions_of_one_library_serve_side_by_side_and_come_back(clipper: Clipper, tmp_path: Path) -> None:
    for version in ("1.0", "2.0"):
        clipper.deploy("m", SMALL, version=version, requirements=[f"small=={version}"])
        clipper.create_application(f"app-{version}", model="m", version=version, slo_ms=20_000)
    answers = [clipper.predict(f"app-{version}", [1.0]).output for version in ("1.0", "2.0")]
    assert answers == ["1.0", "2.0"]

    # Version 1.0 goes to sleep, and its environment goes.
    clipper.delete_application("app-1.0")
    clipper.deploy("m", lambda inputs: ["none"] * len(inputs))
    until(lambda: clipper.version("m", "1.0").state == "sleeping")
    for path in (tmp_path / "cache" / "environments").glob("*/lib/*/site-packages/small-1.0.dist-info"):
        shutil.rmtree(path.parents[3])
    clipper.create_application("app", model="m", slo_ms=20_000)
    clipper.rollback("m", "1.0")
    assert clipper.predict("app", [1.0]).output == "1.0"


def test_the_password_of_an_index_is_shown_to_nobody(clipper: Clipper, server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://ci:s3cret@127.0.0.1:{silent.getsockname()[1]}/small-1.0-py3-none-any.whl"
        clipper.deploy("m", SMALL, version="1.0", requirements=[f"small @ {url}"], wait=False)
        progress = until(lambda: (told := clipper.version("m", "1.0").progress) and "small" in told and told)
    failed = until(lambda: (now := clipper.version("m", "1.0")).state == "failed" and now)
    assert "***@127.0.0.1" in progress
    assert not [text for text in (progress, repr(failed), server.log) if "s3cret" in text]


def test_code_of_another_release_is_told_and_nothing_is_built_for_it(
    clipper: Clipper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "lazy.py").write_text(
        "class Model:\n    def __init__(self, data): self.data = data\n"
        "    def predict_batch(self, inputs): return [1] * len(inputs)\n"
    )
    here = sklearn.__version__.encode()
    saved = pickle.dumps(LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0]))
    (tmp_path / "older.pkl").write_bytes(saved.replace(bytes([len(here)]) + here, b"\x050.9.0"))
    (tmp_path / "newer.pkl").write_bytes(saved)
    folder = tmp_path / "folder" / "of" / "several"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("trained on Monday")
    shutil.copy(tmp_path / "older.pkl", folder / "m.pkl")
    monkeypatch.chdir(code)
    told = {
        name: clipper.deploy("m", "lazy:Model", data=tmp_path / name).warning or ""
        for name in ("older.pkl", "newer.pkl", "folder")
    }
    assert told["newer.pkl"] == "" and told["folder"] == told["older.pkl"]
    assert f"saved with scikit-learn 0.9.0 but runs with {sklearn.__version__}" in told["older.pkl"]
    assert not list((tmp_path / "cache").glob("environments/*")), "code runs where it ran before"


def test_what_cannot_be_installed_fails_and_leaves_what_serves(clipper: Clipper) -> None:
    clipper.deploy("m", SMALL, requirements=["small==1.0"])
    with pytest.raises(ContainerFailed, match=r"its environment cannot be built: .*small==3\.0") as caught:
        clipper.deploy("m", SMALL, requirements=["small==3.0"])
    assert any("small==3.0" in line for line in caught.value.log_tail)
    assert clipper.version("m", "2").state == "failed"
    assert clipper.model("m").current == "1"


def test_a_build_ends_with_its_supervisor_and_the_next_builds_it(
    clipper: Clipper, server: Server, packages: Path
) -> None:
    slow = SlowPackage.make(packages / "slow")
    predict = tells_version_of("slow")
    clipper.deploy("m", predict, requirements=[slow.requirement], start_timeout_s=TIMEOUT_S, wait=False)
    until(lambda: (clipper.version("m", "1").progress or "").startswith("building slow"))
    until(lambda: slow.builds)
    server.kill()
    until(lambda: not any(name.startswith("environment") for name in processes_of(server.home).values()))

    with Clipper.connect(home=server.start().home) as again:
        until(lambda: len(slow.builds) == 2)
        assert again.version("m", "1").state == "starting"
        slow.let_through()
        assert again.wait_until_ready("m", "1", TIMEOUT_S).progress is None
        # A version that is removed takes its build with it.
        other = SlowPackage.make(packages / "other")
        again.deploy("m", predict, requirements=[other.requirement], make_current=False, wait=False)
        until(lambda: other.builds)
        again.delete_model("m", "2")
        until(lambda: not any(name.startswith("environment") for name in processes_of(server.home).values()))
