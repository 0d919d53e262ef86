"""The management API over a real socket."""

import hashlib
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from clipper import errors
from clipper.api.schemas import MAX_ARTIFACT_BYTES
from clipper.api.server.statuses import STATUSES
from clipper.errors import ClipperError
from clipper.supervisor.history.event_log import NewEvent
from clipper.values.types import Caller
from tests.conftest import READ_TOKEN, TOKEN, Api
from tests.memory_operations import LOG_TAIL
from tests.waiting import TIMEOUT_S, until

TAR = b"\0" * 1024
DIGEST = hashlib.sha256(TAR).hexdigest()


def call(api: Api, method: str, path: str, kind: str = "application/json", **options: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {TOKEN}"} | options.pop("headers", {})
    if "content" in options:
        headers |= {"Content-Type": kind}
    return httpx.request(method, api.url + path, timeout=TIMEOUT_S, headers=headers, **options)


def put(api: Api, digest: str, content: bytes | Iterator[bytes]) -> httpx.Response:
    return call(api, "PUT", f"/artifacts/{digest}", "application/x-tar", content=content)


def failure(response: httpx.Response) -> tuple[int, str, str]:
    body = response.json()
    assert {"error", "cause"} <= body.keys() <= {"error", "cause", "log_tail"}
    return response.status_code, body["error"], body["cause"]


def upload_head(size_bytes: int) -> bytes:
    return (
        f"PUT /artifacts/{DIGEST} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Type: application/x-tar\r\nContent-Length: {size_bytes}\r\n\r\n"
    ).encode()


def deploy(api: Api, model: str = "digits", **fields: object) -> httpx.Response:
    put(api, DIGEST, TAR)
    body = {"artifact": DIGEST, "loader": "file", "target": "model.joblib", **fields}
    return call(api, "POST", f"/models/{model}/versions", json=body)


def test_every_error_code_has_a_status() -> None:
    codes = {kind.code for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ClipperError)}
    assert codes == STATUSES.keys()


def test_an_application_from_creation_to_removal(api: Api) -> None:
    new = {"name": "digits", "slo_ms": 20, "default_output": None, "links": [{"model": "m"}]}
    made = call(api, "POST", "/applications", json=new)
    assert (made.status_code, made.json()["default_output"], made.json()["slo_ms"]) == (201, None, 20)
    changed = call(api, "PATCH", "/applications/digits", json={"slo_ms": 50})
    assert (changed.status_code, changed.json()["slo_ms"], changed.json()["default_output"]) == (200, 50, None)
    linked = call(api, "PUT", "/applications/digits/links/other", json={"version": "3"})
    link = {"model": "other", "version": "3", "shadow": False, "cost": None}
    assert (linked.status_code, linked.json()["links"]) == (200, [link])
    unlinked = call(api, "DELETE", "/applications/digits/links/other")
    assert (unlinked.status_code, unlinked.json()["links"]) == (200, [])
    assert [app["name"] for app in call(api, "GET", "/applications").json()] == ["digits"]
    assert call(api, "DELETE", "/applications/digits").status_code == 204
    assert failure(call(api, "GET", "/applications/digits"))[:2] == (404, "not_found")


def test_an_application_without_a_default_shows_none(api: Api) -> None:
    made = call(api, "POST", "/applications", json={"name": "digits", "slo_ms": 20})
    assert made.status_code == 201
    assert "default_output" not in made.json()


def test_a_model_from_deployment_to_removal(api: Api) -> None:
    first = deploy(api)
    assert (first.status_code, first.json()["state"], first.json()["version"]) == (202, "starting", "1")
    assert deploy(api, batching={"policy": "none"}, replicas=2).json()["current"] is True
    assert call(api, "GET", "/models/digits/versions/2").status_code == 200
    rolled = call(api, "POST", "/models/digits/rollback", json={})
    assert (rolled.status_code, rolled.json()["current"], rolled.json()["previous"]) == (200, "1", "2")
    scaled = call(api, "POST", "/models/digits/scale", json={"replicas": 3})
    assert (scaled.status_code, scaled.json()["replicas_wanted"], scaled.json()["scaling"]) == (202, 3, None)
    ranged = call(api, "POST", "/models/digits/scale", json={"version": "2", "replicas": {"min": 1, "max": 4}})
    assert (ranged.status_code, ranged.json()["scaling"]) == (202, {"min": 1, "max": 4})
    for wrong in ("1..4", {"min": 1}, {"min": 1, "max": 4, "step": 1}, 1.5, None):
        refused = call(api, "POST", "/models/digits/scale", json={"replicas": wrong})
        assert failure(refused)[0] == 400, wrong
    logs = call(api, "GET", "/models/digits/logs?lines=1&version=2&replica=digits:2%231")
    places = {"digits:2#1": str(len(LOG_TAIL))}
    assert logs.json() == {"lines": {"digits:2#1": [LOG_TAIL[-1]]}, "places": places}
    rest = call(api, "GET", f"/models/digits/logs?version=2&after=digits:2%231={len(LOG_TAIL) - 1}")
    assert rest.json() == logs.json()
    own = call(api, "GET", "/logs?name=worker-0&after=supervisor=1&after=worker-0=1").json()
    assert own == {"lines": {"worker-0": list(LOG_TAIL[1:])}, "places": {"worker-0": str(len(LOG_TAIL))}}
    assert call(api, "DELETE", "/models/digits/versions/2").status_code == 204
    assert [model["name"] for model in call(api, "GET", "/models").json()] == ["digits"]
    assert call(api, "DELETE", "/models/digits").status_code == 204
    assert failure(call(api, "GET", "/models/digits"))[:2] == (404, "not_found")


NAMED = (["svm", "nobody"], ["digits", "svm"], ["nobody"])


def test_replicas(api: Api) -> None:
    deploy(api, replicas=2)
    assert [replica["id"] for replica in call(api, "GET", "/replicas").json()] == ["digits:1#1", "digits:1#2"]
    assert call(api, "GET", "/replicas/digits:1%232").json()["id"] == "digits:1#2"
    deploy(api, "svm")
    for path, field in (("/models?name", "name"), ("/replicas?model", "model")):
        parameter = path.rpartition("?")[2]
        named = {tuple(names): call(api, "GET", f"{path}={f'&{parameter}='.join(names)}").json() for names in NAMED}
        assert [{one[field] for one in found} for found in named.values()] == [{"svm"}, {"digits", "svm"}, set()]
    assert failure(call(api, "GET", "/replicas/digits:1%239"))[:2] == (404, "not_found")


def test_a_container_that_cannot_start_gives_its_last_lines(api: Api) -> None:
    answer = call(api, "POST", "/models/broken/rollback", json={"version": "1"})
    assert failure(answer)[:2] == (502, "container_failed")
    assert answer.json()["log_tail"] == list(LOG_TAIL)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"slo_ms": 1}, ["name", "required"]),
        ({"name": "a", "slo_ms": "fast"}, ["slo_ms", "float", "str"]),
        ({"name": "a", "slo_ms": 1, "slo": 2}, ["unknown field", "slo"]),
        ({"name": "a", "slo_ms": 1, "links": [{"version": "1"}]}, ["links", "model"]),
        ([1], ["object", "array"]),
    ],
)
def test_a_body_that_does_not_fit_is_told_field_and_types(api: Api, body: object, expected: list[str]) -> None:
    status, code, cause = failure(call(api, "POST", "/applications", json=body))
    assert (status, code) == (400, "malformed_request")
    assert all(part in cause for part in expected), cause


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b'{"a\xff":1}', b"nul", b"[" * 100_000])
def test_a_body_that_is_not_json(api: Api, body: bytes) -> None:
    answer = call(api, "POST", "/applications", content=body)
    assert failure(answer)[:2] == (400, "malformed_request")


@pytest.mark.parametrize(
    ("method", "path", "expected", "names"),
    [
        ("GET", "/nothing", (404, "not_found"), "/nothing"),
        ("POST", "/status", (405, "method_not_allowed"), "GET"),
        ("GET", "/models/digits/logs?lines=many", (400, "malformed_request"), "lines"),
        ("GET", "/models/digits/logs?after=digits:1%231", (400, "invalid_argument"), "NAME=PLACE"),
        ("GET", "/models/digits/logs?lines=0", (400, "malformed_request"), "lines"),
        ("PUT", "/artifacts/..%2f..%2fetc", (404, "not_found"), "/artifacts"),
        ("PUT", "/artifacts/abc", (400, "malformed_request"), "sha256"),
    ],
)
def test_what_the_framework_refuses_has_the_same_form(
    api: Api, method: str, path: str, expected: tuple[int, str], names: str
) -> None:
    status, code, cause = failure(call(api, method, path))
    assert (status, code) == expected
    assert names in cause


def test_a_large_json_body_is_refused(api: Api) -> None:
    body = {"name": "a", "slo_ms": 1, "default_output": "x" * 2_000_000}
    assert failure(call(api, "POST", "/applications", json=body))[:2] == (413, "too_large")


def test_an_artifact_is_streamed(api: Api) -> None:
    chunk, count = b"\1" * 1_000_000, 32
    digest = hashlib.sha256(chunk * count).hexdigest()
    assert call(api, "HEAD", f"/artifacts/{digest}").status_code == 404
    sent = put(api, digest, (chunk for _ in range(count)))
    assert sent.status_code == 201
    assert api.operations.artifacts == {digest: len(chunk) * count}
    assert api.operations.largest_chunk_bytes <= len(chunk)
    assert call(api, "HEAD", f"/artifacts/{digest}").status_code == 200
    again = put(api, digest, (chunk for _ in range(count)))
    assert again.status_code == 200


def test_an_artifact_of_another_digest_is_refused(api: Api) -> None:
    assert failure(put(api, DIGEST, b"other"))[:2] == (400, "invalid_argument")


def test_an_artifact_over_the_bound_is_refused_before_it_is_sent(api: Api) -> None:
    address = urlsplit(api.url)
    with socket.create_connection((address.hostname, address.port), timeout=TIMEOUT_S) as connection:
        connection.sendall(upload_head(MAX_ARTIFACT_BYTES + 1))
        answer = b""
        while b"too_large" not in answer:
            received = connection.recv(65536)
            assert received, f"closed after {answer!r}"
            answer += received
    assert answer.startswith(b"HTTP/1.1 413")


def test_a_client_that_goes_away_in_its_upload(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    address = urlsplit(api.url)
    with socket.create_connection((address.hostname, address.port), timeout=TIMEOUT_S) as connection:
        connection.sendall(upload_head(1024) + b"part")
    until(lambda: api.operations.upload_errors == ["malformed_request"])
    assert api.operations.artifacts == {}
    assert caplog.text == ""


def test_health(api: Api) -> None:
    assert call(api, "GET", "/health/live").json() == {"status": "live"}
    assert call(api, "GET", "/health/ready").json() == {"status": "ready"}
    api.operations.causes = ["worker 0 is starting", "the registry is read-only"]
    answer = call(api, "GET", "/health/ready")
    status, code, cause = failure(answer)
    assert (status, code) == (503, "unavailable")
    # Whoever asks is told how many there are, and no more.
    assert "2 reasons" in cause
    assert "registry" not in cause
    assert answer.headers["retry-after"] == "1"
    assert call(api, "GET", "/health/live").status_code == 200


def test_a_bug_is_answered_without_its_traceback(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    api.operations.raises = KeyError("secret detail")
    status, code, cause = failure(call(api, "GET", "/status"))
    assert (status, code) == (500, "internal_error")
    assert "secret detail" not in cause
    assert "secret detail" in caplog.text


def test_status_metrics_and_stop(api: Api) -> None:
    assert call(api, "GET", "/status").json()["management_url"] == api.url
    metrics = call(api, "GET", "/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=")
    assert 'clipper_worker_up{worker="0"} 1.0' in metrics.text
    assert call(api, "POST", "/stop").status_code == 202
    assert api.operations.stopped


@pytest.mark.parametrize("path", ["/schema", "/schema/openapi.json"])
def test_the_description_has_every_call_and_what_errors_look_like(api: Api, path: str) -> None:
    described = call(api, "GET", path)
    assert "json" in described.headers["content-type"]
    schema = described.json()
    assert "/models/{model}/versions" in schema["paths"] and "Failure" in schema["components"]["schemas"]
    for operations in schema["paths"].values():
        for operation in operations.values():
            assert operation["summary"] and operation["responses"]["default"]["content"]


def test_series_of_late(api: Api) -> None:
    call(api, "POST", "/applications", json={"name": "digits", "input_type": "float64[2]"})
    deploy(api)
    found = call(api, "GET", "/series").json()
    assert found == {
        "step_s": 2.0,
        "end_s": 1e9,
        "applications": {"digits": {"rate": [None, 2.5]}},
        "models": {"digits": {"rate": [1.5, None, 3.5]}},
        "workers": {"0": {"cpu_share": [0.25]}},
        "left_out": 0,
    }
    # A gap is null, however it is kept.
    assert call(api, "GET", "/series/applications/digits").json()["series"] == {"rate": [None, None, 2.5]}
    assert call(api, "GET", "/series/applications/digits?seconds=2").json()["series"] == {"rate": [None]}
    assert call(api, "GET", "/series/models/digits?seconds=3600").json()["left_out"] is True
    for kind in ("applications", "models"):
        assert failure(call(api, "GET", f"/series/{kind}/nobody"))[:2] == (404, "not_found")
        for seconds in ("1", "3601", "-2", "x", "1e9", ""):
            assert call(api, "GET", f"/series/{kind}/digits?seconds={seconds}").status_code == 400, seconds


def test_events(api: Api) -> None:
    assert call(api, "GET", "/events").json() == {"events": [], "next": 0}
    api.operations.happen(
        NewEvent("deployment", "model digits", "version 2 has failed: no", "2", "error"),
        NewEvent("key", "key web", "the key is made", by=Caller("ci", "10.0.0.7")),
    )
    failed = {
        "id": 1,
        "time_s": 1e9,
        "kind": "deployment",
        "subject": "model digits",
        "message": "version 2 has failed: no",
        "version": "2",
        "level": "error",
        "who": "clipper",
        "address": None,
    }
    assert call(api, "GET", "/events?limit=1&after=0").json() == {"events": [failed], "next": 1}
    found = call(api, "GET", "/events?subject=key%20web&kind=key").json()
    assert [one["id"] for one in found["events"]] == [2] and found["events"][0]["version"] is None
    assert call(api, "GET", "/events?who=ci").json()["events"] == found["events"]
    assert (found["events"][0]["who"], found["events"][0]["address"]) == ("ci", "10.0.0.7")
    assert call(api, "GET", "/events?after=2").json() == {"events": [], "next": 2}
    assert call(api, "GET", f"/events?after={10**30}").json() == {"events": [], "next": 2}
    for wrong in ("limit=0", "limit=1001", "after=-1", "after=x", "kind=nothing", "limit="):
        assert call(api, "GET", f"/events?{wrong}").status_code == 400, wrong


def test_an_application_is_tried_by_way_of_the_api(api: Api) -> None:
    call(api, "POST", "/applications", json={"name": "digits", "slo_ms": 20})
    sent = b'{ "input": [1e3] }'
    headers = {"Clipper-Api-Key": "k" * 40}
    answer = call(api, "POST", "/applications/digits/predict", content=sent, headers=headers)
    assert (answer.status_code, answer.json()["output"]) == (200, 7)
    assert call(api, "POST", "/applications/digits/observe", json={"query_id": 1, "label": 7}).json()["observed"]
    # The bytes as they came: the query port is the one that reads them.
    assert api.operations.asked[0] == ("digits", "predict", sent, "k" * 40)
    assert failure(call(api, "POST", "/applications/digits/predict", content=b"[1]"))[:2] == (400, "malformed_request")
    assert failure(call(api, "POST", "/applications/none/predict", json={}))[:2] == (404, "not_found")
    described = call(api, "GET", "/schema").json()["paths"]["/applications/{app}/predict"]["post"]["responses"]["200"]
    assert described["content"]["application/json"]["schema"]["type"] == "object"


def test_a_reader_sees_no_part_of_a_key(api: Api) -> None:
    assert call(api, "POST", "/keys", json={"name": "web", "key": "w" * 40}).status_code == 201
    (shown,) = call(api, "GET", "/keys").json()
    assert len(shown["fingerprint"]) == 8
    (seen,) = call(api, "GET", "/keys", headers={"Authorization": f"Bearer {READ_TOKEN}"}).json()
    assert seen == shown | {"fingerprint": None}


def test_a_reader_tries_nothing(api: Api) -> None:
    headers = {"Authorization": f"Bearer {READ_TOKEN}"}
    for path in ("/applications/digits/predict", "/applications/digits/observe"):
        assert failure(call(api, "POST", path, json={}, headers=headers))[:2] == (403, "forbidden")
    assert api.operations.asked == []
