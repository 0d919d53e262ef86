"""The Python client, over real sockets."""

import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import msgspec
import numpy as np
import pytest

from clipper import Clipper
from clipper.api.schemas import Failure
from clipper.base.tls.trust import Trust
from clipper.client import Observed
from clipper.client.access import tls_for_url, token_for_url
from clipper.client.failures import to_error
from clipper.client.http_api import HttpApi
from clipper.client.packaging.models import package
from clipper.errors import (
    ClipperError,
    Conflict,
    ContainerFailed,
    DeadlineExceeded,
    Forbidden,
    InvalidArgument,
    MalformedRequest,
    NotFound,
    RegistryUnavailable,
    Unauthorized,
    Unavailable,
)
from clipper.settings.application import Configured, Link
from clipper.settings.home import find_home, lock_home, read_place, read_token
from clipper.settings.replicas import ReplicaRange
from clipper.settings.version import Batching
from tests.conftest import READ_TOKEN, TOKEN, Api
from tests.memory_operations import LOG_TAIL
from tests.waiting import TIMEOUT_S


@pytest.fixture
def clipper(api: Api):  # type: ignore[no-untyped-def]
    with Clipper.connect(home=api.home) as client:
        yield client


def double(inputs: list[float]) -> list[float]:
    return [2 * value for value in inputs]


def test_deploy_waits_until_the_version_is_ready(api: Api, clipper: Clipper) -> None:
    told: list[str] = []
    version = clipper.deploy("double", double, replicas=2, batching="fixed", max_batch=8, progress=told.append)
    assert (version.state, version.version, version.current) == ("ready", "1", True)
    assert [replica.state for replica in version.replicas] == ["ready", "ready"]
    (deployment,) = api.operations.deployments
    assert (deployment.loader, deployment.target, deployment.batching) == ("file", "model.pkl", Batching("fixed", 8))
    assert deployment.artifact in api.operations.artifacts
    assert told[0] == "packing the model"
    assert any("starting double:1" in text for text in told)


def test_what_goes_on_before_containers_start_is_told(clipper: Clipper) -> None:
    told: list[str] = []
    assert clipper.deploy("built", double, progress=told.append).state == "ready"
    assert "built:1: installing 12 packages" in told


def test_an_artifact_is_sent_once(api: Api, clipper: Clipper) -> None:
    told: list[str] = []
    clipper.deploy("double", double, wait=False)
    clipper.deploy("double", double, wait=False, progress=told.append)
    assert "the server has this artifact already" in told
    assert len(api.operations.artifacts) == 1


def test_a_packed_artifact_stays_the_callers(api: Api, clipper: Clipper) -> None:
    with package(double) as artifact:
        clipper.deploy("double", artifact)
        assert artifact.path.exists()
        assert api.operations.artifacts == {artifact.digest: artifact.size_bytes}


def test_a_container_that_cannot_start_shows_its_last_lines(clipper: Clipper) -> None:
    with pytest.raises(ContainerFailed, match="exited with 1") as caught:
        clipper.deploy("broken", double)
    assert caught.value.log_tail == list(LOG_TAIL)


def test_a_wait_is_bounded(api: Api, clipper: Clipper) -> None:
    made = clipper.deploy("double", double)
    api.operations.versions["double"]["1"] = msgspec.structs.replace(made, replicas_wanted=5)
    with pytest.raises(DeadlineExceeded, match="1 of 5 replicas"):
        clipper.wait_until_ready("double", made.version, timeout_s=0)


def test_a_wait_ends_where_another_version_took_its_place(api: Api, clipper: Clipper) -> None:
    made = clipper.deploy("double", double)
    api.operations.versions["double"]["1"] = msgspec.structs.replace(made, state="sleeping", replicas=())
    with pytest.raises(Conflict, match="a rollback or a later deployment took its place"):
        clipper.wait_until_ready("double", "1", timeout_s=60)


def test_a_wait_ends_where_a_replica_dies_again_and_again(api: Api, clipper: Clipper) -> None:
    made = clipper.deploy("double", double)
    dying = msgspec.structs.replace(made.replicas[0], state="crash_loop", last_error="exit code 7")
    api.operations.versions["double"]["1"] = msgspec.structs.replace(made, replicas=(dying,))
    with pytest.raises(ContainerFailed, match="double:1#1 dies each time it starts: exit code 7") as caught:
        clipper.wait_until_ready("double", "1", timeout_s=60)
    assert caught.value.log_tail == list(LOG_TAIL)


def test_a_replica_that_never_started_has_no_log_to_show(api: Api, clipper: Clipper) -> None:
    made = clipper.deploy("double", double)
    unstarted = msgspec.structs.replace(made.replicas[0], id="double:1#7", state="crash_loop", last_error="no GPU")
    api.operations.versions["double"]["1"] = msgspec.structs.replace(made, replicas=(*made.replicas, unstarted))
    api.operations.without_logs.add("double:1#7")
    with pytest.raises(ContainerFailed, match="double:1#7 dies each time it starts: no GPU") as caught:
        clipper.wait_until_ready("double", "1", timeout_s=60)
    assert caught.value.log_tail == []


def test_models(clipper: Clipper) -> None:
    clipper.deploy("double", double)
    clipper.deploy("double", double, version="b")
    assert clipper.rollback("double").current == "1"
    assert clipper.rollback("double", "b").current == "b"
    assert clipper.scale("double", ReplicaRange(2, 4)).scaling == ReplicaRange(2, 4)
    scaled = clipper.scale("double", 3)
    assert (scaled.replicas_wanted, scaled.scaling) == (3, None)
    assert [version.version for version in clipper.model("double").versions] == ["1", "b"]
    assert [model.name for model in clipper.models()] == ["double"]
    assert len(clipper.replicas()) == 4
    assert clipper.replica("double:b#3").version == "b"
    assert clipper.logs("double", replica="double:b#3", lines=1).lines == {"double:b#3": (LOG_TAIL[-1],)}
    own = clipper.server_logs(lines=1)
    assert own.lines == dict.fromkeys(("supervisor", "worker-0"), (LOG_TAIL[-1],))
    assert clipper.server_logs("worker-0", after=own).lines == {"worker-0": ()}
    clipper.delete_model("double", "1")
    assert [version.version for version in clipper.model("double").versions] == ["b"]
    clipper.delete_model("double")
    assert clipper.models() == []


def test_applications(clipper: Clipper) -> None:
    made = clipper.create_application("app", model="m", slo_ms=20, default_output=None)
    assert (made.links, made.slo_ms, made.default_output) == ((Link("m"),), 20, None)
    assert clipper.change_application("app", default_output=3).default_output == 3
    assert clipper.change_application("app", slo_ms=30).slo_ms == 30
    assert clipper.link("app", "other", "2").links == (Link("other", "2"),)
    assert clipper.unlink("app", "other").links == ()
    assert [app.name for app in clipper.applications()] == ["app"]
    assert clipper.application("app").default_output == 3
    clipper.delete_application("app")
    assert clipper.applications() == []


def test_an_application_of_several_models_with_a_policy(clipper: Clipper) -> None:
    made = clipper.create_application(
        "app",
        model=["svm", "net:2"],
        shadow=["forest"],
        policy="exp3",
        policy_parameters={"eta": 0.5},
        loss="absolute",
        loss_parameters={"range": 10},
        half_life=None,
        prior_weight=3,
        confidence_threshold=0.6,
        feedback_ttl_s=60,
    )
    assert made.links == (Link("svm"), Link("net", "2"), Link("forest", shadow=True))
    assert (made.policy, made.loss) == (Configured("exp3", {"eta": 0.5}), Configured("absolute", {"range": 10}))
    assert (made.half_life, made.prior_weight, made.confidence_threshold, made.feedback_ttl_s) == (None, 3, 0.6, 60)

    changed = clipper.change_application("app", policy="ucb1", half_life=9, confidence_threshold=None)
    assert (changed.policy, changed.half_life, changed.confidence_threshold) == (Configured("ucb1"), 9, None)
    assert (changed.loss, changed.prior_weight) == (made.loss, 3)
    assert clipper.link("app", "other", shadow=True).links == (Link("other", shadow=True),)
    learned = clipper.policy("app", "user 7/8")
    assert (learned.policy, learned.context, learned.models[0].shadow) == ("ucb1", "user 7/8", True)
    assert clipper.policy("app").context is None
    asked = clipper.report("app", confidence=0.9, tolerance=0.0, context="user 7/8")
    assert (asked.confidence, asked.tolerance, asked.groups[0].context) == (0.9, 0.0, "user 7/8")
    assert [each.model for each in asked.groups[0].models] == ["other"]
    assert (clipper.report("app", by_context=True).confidence, asked.groups[0].best) == (0.95, "m")


def test_what_only_goes_together(clipper: Clipper) -> None:
    with pytest.raises(InvalidArgument, match="NAME:VERSION"):
        clipper.create_application("app", model=["a", "b"], version="1")
    with pytest.raises(InvalidArgument, match="policy_parameters go with a policy"):
        clipper.change_application("app", policy_parameters={"eta": 1})


def test_the_code_of_ones_own_policy_is_sent_once(
    api: Api, clipper: Clipper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "own.py").write_text("class Policy: pass\ndef loss(output, label): pass\n")
    monkeypatch.chdir(folder)
    made = clipper.create_application("app", policy="own:Policy", loss="own:loss")
    assert made.code is not None and list(api.operations.artifacts) == [made.code]
    assert clipper.change_application("app", loss="own:loss").code == made.code
    assert clipper.change_application("app", slo_ms=5).code == made.code
    assert clipper.create_application("plain", policy="exp3").code is None
    with pytest.raises(InvalidArgument, match="no module 'absent'"):
        clipper.change_application("app", policy="absent:Policy")


def test_series(clipper: Clipper) -> None:
    clipper.create_application("digits", input_type="float64[2]")
    assert clipper.series().applications == {"digits": {"rate": [None, 2.5]}}
    assert clipper.application_series("digits").series == {"rate": [None, None, 2.5]}
    assert clipper.application_series("digits", seconds=2).series == {"rate": [None]}
    with pytest.raises(NotFound):
        clipper.model_series("a/b?c")


def test_feedback(api: Api, clipper: Clipper) -> None:
    clipper.create_application("app")
    assert clipper.observe("app", query_id=1, label=3) == Observed(True, False)
    assert clipper.observe("app", query_id=2, reward=0.5).duplicate
    clipper.observe("app", input=np.ones(2), label=None, context="u")
    assert api.operations.observed == [
        {"query_id": 1, "label": 3},
        {"query_id": 2, "reward": 0.5},
        {"input": [1.0, 1.0], "label": None, "context": "u"},
    ]
    with pytest.raises(NotFound, match="query 404 is not known"):
        clipper.observe("app", query_id=404, label=1)


def test_feedback_on_several_queries(clipper: Clipper) -> None:
    clipper.create_application("app")
    observations = [{"query_id": id_, "label": np.int64(3)} for id_ in (1, 404, 2)]
    first, unknown, second = clipper.observe_batch("app", observations)
    assert (first, second) == (Observed(True, False), Observed(True, True))
    assert isinstance(unknown, NotFound)


def test_predictions(clipper: Clipper) -> None:
    clipper.create_application("app")
    assert clipper.predict("app", np.ones(3, np.float32), version="1", context="u").output == 7
    first, second = clipper.predict_batch("app", [[1.0], np.float64(2)])
    assert first == second


def test_the_servers_errors_are_raised_by_their_code(api: Api, clipper: Clipper) -> None:
    with pytest.raises(NotFound, match="no model 'absent'"):
        clipper.model("absent")
    clipper.create_application("app")
    with pytest.raises(Conflict):
        clipper.create_application("app")
    with pytest.raises(MalformedRequest, match="slo_ms"):
        clipper.create_application("b", slo_ms="fast")  # type: ignore[arg-type]
    api.operations.raises = RegistryUnavailable("disk full")
    with pytest.raises(RegistryUnavailable, match="disk full"):
        clipper.status()


def test_an_unknown_code_is_still_a_clipper_error() -> None:
    error = to_error(Failure("of_a_newer_server", "why"))
    assert (type(error), str(error)) == (ClipperError, "why")


def test_a_server_by_its_url(api: Api) -> None:
    with Clipper.connect(url=api.url + "/", token=TOKEN) as clipper:
        assert clipper.query_url == api.url + "/query"
        assert clipper.status().management_url == api.url
        assert "clipper_ready 1.0" in clipper.metrics()


def test_no_server_was_started(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="clipper start"):
        Clipper.connect(home=tmp_path)


def test_the_server_is_gone(tmp_path: Path) -> None:
    place = '{"pid": 1, "management_url": "http://127.0.0.1:1", "query_url": "http://127.0.0.1:1", "started_at": 1}'
    (tmp_path / "supervisor.json").write_text(place)
    with pytest.raises(Unavailable, match="clipper start"):
        Clipper.connect(home=tmp_path)


def test_the_servers_port_is_another_servers_by_now(api: Api, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "supervisor.json").write_bytes((api.home / "supervisor.json").read_bytes())
    lock = lock_home(other)
    with pytest.raises(Unavailable, match=f"is that of {api.home}"):
        Clipper.connect(home=other, token=TOKEN)
    (other / "token").write_text("x" * 40)
    with pytest.raises(Unauthorized, match=f"does not know the token in CLIPPER_TOKEN or, .* the token of {other}"):
        Clipper.connect(home=other)
    os.close(lock)


def test_a_token_is_found_by_itself(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    with Clipper.connect(home=api.home) as clipper:
        assert clipper.tokens() == []
    # A server that is this home's, also by another name of the machine's.
    with Clipper.connect(url=api.url.replace("127.0.0.1", "localhost"), home=api.home) as clipper:
        assert clipper.tokens() == []
    monkeypatch.setenv("CLIPPER_TOKEN", READ_TOKEN)
    with Clipper.connect(home=api.home) as clipper, pytest.raises(Forbidden, match="role admin"):
        clipper.create_token("grafana")
    with Clipper.connect(url=api.url) as clipper, pytest.raises(Forbidden, match="role admin"):
        clipper.tokens()
    with Clipper.connect(home=api.home) as clipper, pytest.raises(Forbidden, match="role admin"):
        clipper.deploy("digits", lambda inputs: inputs)
    with Clipper.connect(home=api.home, token=TOKEN) as clipper:
        assert clipper.create_token("grafana").role == "read"
        clipper.revoke_token("grafana")
        assert clipper.tokens() == []


def test_a_token_that_is_missing_or_not_known(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPPER_HOME", str(tmp_path / "nothing"))
    with pytest.raises(Unauthorized, match="CLIPPER_TOKEN"):
        Clipper.connect(url=api.url)
    with pytest.raises(Unauthorized, match="does not know the token"):
        Clipper.connect(url=api.url, token="x" * 40)
    for unfit in ("a b", "line\nfeed", "ä" * 40):
        with pytest.raises(InvalidArgument, match="the token or key is not valid") as refused:
            Clipper.connect(url=api.url, token=unfit)
        assert unfit not in str(refused.value)


def test_a_token_that_was_replaced_is_read_again(api: Api) -> None:
    (api.home / "token").write_text("x" * 40)
    http = HttpApi(api.url, lambda: read_token(api.home))
    with pytest.raises(Unauthorized):
        http.call("GET", "/status")
    (api.home / "token").write_text(TOKEN)
    assert b'"version"' in http.call("GET", "/status")
    http.close()


def test_a_token_that_another_thread_has_read_again_is_sent_again() -> None:
    tokens = ["x" * 40]
    http: HttpApi

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_old = self.headers["Authorization"].endswith("x")
            if is_old:
                tokens[0] = "y" * 40
                assert http.call("GET", "/another") == b""
            self.send_response(401 if is_old else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        http = HttpApi(f"http://127.0.0.1:{server.server_address[1]}", lambda: tokens[0])
        try:
            assert http.call("GET", "/one") == b""
        finally:
            http.close()
            server.shutdown()
            thread.join(TIMEOUT_S)


def test_a_token_is_shown_to_no_other_server(api: Api, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    (gone / "token").write_text(TOKEN)
    assert token_for_url("http://127.0.0.1:1", api.home, None)() is None
    assert token_for_url("http://elsewhere:" + api.url.rpartition(":")[2], api.home, None)() is None
    # A process that was killed: whatever took its port since may be anyone's.
    with subprocess.Popen(["true"]) as dead:
        dead.wait()
    place = msgspec.structs.replace(read_place(api.home), pid=dead.pid)
    (gone / "supervisor.json").write_bytes(msgspec.json.encode(place))
    assert token_for_url(api.url, gone, None)() is None
    with pytest.raises(Unavailable, match=f"its process {dead.pid} is gone"):
        Clipper.connect(home=gone)
    # Its process id passed to another process, or whoever started it has not collected its status.
    (gone / "supervisor.json").write_bytes(msgspec.json.encode(read_place(api.home)))
    assert token_for_url(api.url, gone, None)() is None
    with pytest.raises(Unavailable, match=f"its process {os.getpid()} is gone"):
        Clipper.connect(home=gone)


def test_the_certificate_of_a_home_is_trusted_at_both_servers_ports(api: Api) -> None:
    place = msgspec.structs.replace(read_place(api.home), query_url="http://127.0.0.1:2")
    (api.home / "supervisor.json").write_bytes(msgspec.json.encode(place))
    (api.home / "certificate.pem").write_text("no certificate")
    for url in (api.url, "https://localhost:2"):
        with pytest.raises(Unavailable, match=r"certificate\.pem"):
            tls_for_url(url, api.home, Trust()).context  # noqa: B018
    assert tls_for_url("https://127.0.0.1:3", api.home, Trust()).context.check_hostname


def test_importing_clipper_loads_none_of_its_libraries() -> None:
    program = "import clipper, sys; print(sorted({'httpx', 'msgspec', 'numpy', 'rich'} & sys.modules.keys()))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=TIMEOUT_S)
    assert ran.stdout == "[]\n"


def test_a_file_that_is_no_place(tmp_path: Path) -> None:
    (tmp_path / "supervisor.json").write_text("{")
    with pytest.raises(Unavailable, match="cannot be read"):
        Clipper.connect(home=tmp_path)


def test_something_else_listens_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 5\r\n\r\nnginx")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(Unavailable, match="is not Clipper: it answered 403 'nginx'"):
            Clipper.connect(url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        thread.join(TIMEOUT_S)


def test_a_server_that_does_not_answer_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        api = HttpApi(f"http://127.0.0.1:{listener.getsockname()[1]}")
        with pytest.raises(DeadlineExceeded, match="GET /status"):
            api.call("GET", "/status", timeout_s=0.01)
        api.close()


@pytest.mark.parametrize("url", ["localhost:1338", "ftp://host", "http://", ""])
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(InvalidArgument, match="http://HOST:PORT"):
        Clipper.connect(url=url)


def test_home_comes_from_the_argument_then_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLIPPER_HOME", "/from/environment")
    assert find_home("/given") == Path("/given")
    assert find_home() == Path("/from/environment")
    monkeypatch.delenv("CLIPPER_HOME")
    assert find_home() == Path.home() / ".clipper"


def test_stop(api: Api, clipper: Clipper) -> None:
    clipper.stop(wait=False)
    assert api.operations.stopped
