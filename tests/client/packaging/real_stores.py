"""``python -m tests.client.packaging.real_stores STORE FOLDER``: fetch models with the libraries of real stores.

It runs with the packages of requirements/stores.txt before the checkout's own.
"""

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import httpx

from clipper.client.packaging import stores
from clipper.client.packaging.addresses import read_address
from clipper.client.packaging.models import look, package
from clipper.client.packaging.stores import Fetched, fetch
from clipper.errors import ClipperError, InvalidArgument, NotFound, Unavailable
from tests.ports import keep_port
from tests.waiting import TIMEOUT_S, until

CONTENT = os.urandom(20_000_000)
SECRET = "testing-secret"


def fetched(text: str, **credentials: str) -> Fetched:
    address = read_address(text)
    assert address is not None
    return fetch(address, credentials, lambda _: None)


def refusal(text: str, kind: type[ClipperError], **credentials: str) -> str:
    try:
        fetched(text, **credentials)
    except kind as error:
        assert SECRET not in str(error)
        return str(error)
    raise AssertionError(f"{text} was fetched")


def try_objects(root: str, put: Callable[[str, bytes], object], given: Mapping[str, str]) -> None:
    """Fetch from an object store. ``put`` writes a file below ``root``; ``given`` are the variables of the store."""
    put("a/m.onnx", CONTENT)
    put("a/more/m.pkl", b"a pickle")
    found = fetched(f"{root}/a/m.onnx", **given)
    assert found.path.read_bytes() == CONTENT
    assert found.source == f"{root}/a/m.onnx#sha256={hashlib.sha256(CONTENT).hexdigest()}"
    folder = fetched(f"{root}/a", **given)
    assert (folder.path / "more" / "m.pkl").read_bytes() == b"a pickle" and "m.pkl is a pickle" in str(folder.warning)
    assert fetched(folder.source, **given).path == folder.path
    # Its content changes: by its pinned address it is not had any more.
    before = look_with(f"{root}/a/m.onnx", given)
    put("a/m.onnx", CONTENT[::-1])
    assert look_with(f"{root}/a/m.onnx", given) != before
    assert "has the digest" in refusal(found.source, InvalidArgument, **given)
    assert fetched(f"{root}/a/m.onnx", **given).path.read_bytes() == CONTENT[::-1]
    # It changes while it is fetched.
    copy: Callable[..., None] = stores._copy

    def change_and_copy(*arguments: Any) -> None:
        copy(*arguments)
        put("a/m.onnx", os.urandom(5))

    stores._copy = change_and_copy
    put("a/m.onnx", os.urandom(1000))
    assert "has changed while it was fetched" in refusal(f"{root}/a/m.onnx", Unavailable, **given)
    stores._copy = copy
    # A part of it is here from a command that was killed.
    put("a/m.onnx", CONTENT)

    def break_off(system: Any, source: str, size_bytes: int, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.with_name(f"{target.name}.partial").write_bytes(CONTENT[:7_000_000])
        copy(system, source, size_bytes, target)

    stores._copy = break_off
    assert fetched(f"{root}/a/m.onnx", **given).path.read_bytes() == CONTENT
    stores._copy = copy
    assert f"there is no {root}/b" in refusal(f"{root}/b", NotFound, **given)
    refusal(f"{root}-nobody-has/b", NotFound, **given)


def look_with(text: str, variables: Mapping[str, str]) -> str:
    address = read_address(text)
    assert address is not None
    return stores.look(address, variables)


def try_s3(_: Path) -> None:
    server = import_module("moto.server").ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    url = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    keys = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}
    given = {**keys, "AWS_ENDPOINT_URL": url}
    os.environ.update(given)
    s3 = import_module("boto3").client("s3", endpoint_url=url)
    for name in given:
        del os.environ[name]
    s3.create_bucket(Bucket="models")
    try_objects("s3://models", lambda name, content: s3.put_object(Bucket="models", Key=name, Body=content), given)
    server.stop()
    refusal("s3://models/a/m.onnx", Unavailable, **given, AWS_MAX_ATTEMPTS="1")


def try_gs(_: Path) -> None:
    with keep_port() as kept:
        port = kept.getsockname()[1]
        emulator = import_module("gcp_storage_emulator.server")
        server = emulator.create_server("127.0.0.1", port, in_memory=True, default_bucket="models")
        server.start()
        given = {"STORAGE_EMULATOR_HOST": f"http://127.0.0.1:{port}"}
        # The library would ask for the kind of a bucket by gRPC, which the emulator does not have, for a minute.
        os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
        system = import_module("gcsfs").GCSFileSystem(token="anon", endpoint_url=given["STORAGE_EMULATOR_HOST"])
        try_objects("gs://models", lambda name, content: system.pipe_file(f"models/{name}", content), given)
        server.stop()
        refusal("gs://models/a/m.onnx", Unavailable, **given)


def try_az(folder: Path) -> None:
    key = base64.b64encode(SECRET.encode()).decode()
    with keep_port() as kept, (folder / "azurite.log").open("wb") as log:
        port = kept.getsockname()[1]
        process = subprocess.Popen(
            [os.environ["AZURITE"], "--blobPort", str(port), "--inMemoryPersistence", "--skipApiVersionCheck"],
            env={**os.environ, "AZURITE_ACCOUNTS": f"testing:{key}"},
            stdout=log,
            stderr=log,
        )
        try:
            until(
                lambda: b"successfully listens" in (folder / "azurite.log").read_bytes(),
                failed=lambda: process.poll() is not None and (folder / "azurite.log").read_text(),
            )
            parts = {
                "DefaultEndpointsProtocol": "http",
                "AccountName": "testing",
                "AccountKey": key,
                "BlobEndpoint": f"http://127.0.0.1:{port}/testing",
            }
            given = {"AZURE_STORAGE_CONNECTION_STRING": ";".join(f"{name}={value}" for name, value in parts.items())}
            blobs = import_module("azure.storage.blob").BlobServiceClient.from_connection_string(
                given["AZURE_STORAGE_CONNECTION_STRING"]
            )
            container = blobs.create_container("models")
            for scheme in ("az", "abfs"):
                try_objects(
                    f"{scheme}://models",
                    lambda name, content: container.upload_blob(name, content, overwrite=True),
                    given,
                )
        finally:
            process.terminate()
            process.wait()
        refusal("az://models/a/m.onnx", Unavailable, **given)


def try_oci(folder: Path) -> None:
    """Files that oras pushes to Docker's registry."""
    with keep_port() as kept, (folder / "registry.log").open("wb") as log:
        host = f"127.0.0.1:{kept.getsockname()[1]}"
        (folder / "registry.yml").write_text(
            f"version: 0.1\nhttp: {{addr: '{host}'}}\nstorage: {{filesystem: {{rootdirectory: {folder}/kept}}}}\n"
        )
        command = ["docker-registry", "serve", str(folder / "registry.yml")]
        process = subprocess.Popen(command, stdout=log, stderr=log)

        def answers() -> bool:
            try:
                return httpx.get(f"http://{host}/v2/", timeout=TIMEOUT_S).status_code == 200
            except httpx.TransportError:
                return False

        try:
            until(answers, failed=lambda: process.poll() is not None and (folder / "registry.log").read_text())
            (folder / "saved" / "in").mkdir(parents=True)
            (folder / "saved" / "in" / "a").write_bytes(b"1")
            (folder / "m.onnx").write_bytes(CONTENT)
            oras = import_module("oras.client").OrasClient(insecure=True)
            os.chdir(folder)
            oras.push(target=f"{host}/org/m:1", files=["m.onnx"])
            oras.push(target=f"{host}/org/m:2", files=["m.onnx", "saved"])
            found = fetched(f"oci://{host}/org/m:1")
            assert found.path.name == "m.onnx" and found.path.read_bytes() == CONTENT
            assert fetched(found.source).source == found.source
            several = fetched(f"oci://{host}/org/m:2")
            assert (several.path / "saved" / "in" / "a").read_bytes() == b"1"
            assert (several.path / "m.onnx").read_bytes() == CONTENT
            assert look(f"oci://{host}/org/m:1") != look(f"oci://{host}/org/m:2")
            refusal(f"oci://{host}/org/m:3", NotFound)
        finally:
            process.terminate()
            process.wait()
        refusal(f"oci://{host}/org/m:1", Unavailable)


class Hub(BaseHTTPRequestHandler):
    """The hub's HTTP API with one repository, as its client asks for it."""

    protocol_version = "HTTP/1.1"
    commits = "a" * 40
    files: ClassVar[dict[str, bytes]] = {
        "model.safetensors": b"safe" * 1000,
        "pytorch_model.bin": b"pickled" * 1000,
        "onnx/m.onnx": CONTENT,
        "README.md": b"about it",
    }
    lies = False
    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        Hub.asked.append(f"{self.command} {self.path} {self.headers.get('Authorization', '')}")
        path = self.path.partition("?")[0]
        if path.startswith("/api/models/org/model"):
            siblings = [
                {"rfilename": name, "size": len(content), "lfs": {"sha256": hashlib.sha256(content).hexdigest(),
                 "size": len(content), "pointerSize": 100}}
                for name, content in Hub.files.items()
            ]  # fmt: skip
            if path.endswith("/revision/none"):
                self.say(404, b"{}", X_Error_Code="RevisionNotFound")
                return
            told = {"id": "org/model", "modelId": "org/model", "sha": Hub.commits, "siblings": siblings, "tags": []}
            self.say(200, json.dumps(told).encode(), Content_Type="application/json")
        elif path.startswith(f"/org/model/resolve/{Hub.commits}/"):
            content = Hub.files[path.removeprefix(f"/org/model/resolve/{Hub.commits}/")]
            digest = hashlib.sha256(content).hexdigest()
            content = content[::-1] if Hub.lies else content
            self.say(200, content, ETag=f'"{digest}"', X_Repo_Commit=Hub.commits)
        else:
            self.say(404, b"{}", X_Error_Code="RepoNotFound")

    def say(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


def try_hub(_: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{server.server_address[1]}"
    found = fetched("hf://org/model@main/onnx/m.onnx", HF_TOKEN=SECRET)
    assert found.path.read_bytes() == CONTENT and found.warning is None
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert found.source == f"hf://org/model@{Hub.commits}/onnx/m.onnx#sha256={digest}"
    asked = [one for one in Hub.asked if "org/model" in one]
    assert len(asked) > 2 and all(SECRET in one for one in asked), "the token of the secret is used"
    folder = fetched("hf://org/model")
    names = sorted(one.relative_to(folder.path).as_posix() for one in folder.path.rglob("*") if one.is_file())
    assert names == ["README.md", "model.safetensors", "onnx/m.onnx"], "safe weights are preferred"
    assert folder.warning is None and folder.source.startswith(f"hf://org/model@{Hub.commits}#sha256=")
    pickled = fetched("hf://org/model/pytorch_model.bin")
    assert "pytorch_model.bin is a pickle" in str(pickled.warning)
    refusal("hf://org/model@none", NotFound)
    refusal("hf://org/other", NotFound, HF_TOKEN=SECRET)
    assert "it has README.md" in refusal("hf://org/model/none.onnx", NotFound)
    # A commit whose content is not what the hub says.
    Hub.commits, Hub.lies = "b" * 40, True
    refusal("hf://org/model/onnx/m.onnx", Unavailable)
    server.shutdown()
    refusal("hf://org/model", Unavailable)


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    kept = keep_port()
    port = kept.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    places = ["--backend-store-uri", f"sqlite:///{folder}/db", "--artifacts-destination", str(folder / "artifacts")]
    with (folder / "mlflow.log").open("wb") as log:
        argv = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        process = subprocess.Popen([*argv, *places], stdout=log, stderr=log)

    def answers() -> bool:
        try:
            return httpx.get(f"{url}/health", timeout=TIMEOUT_S).status_code == 200
        except httpx.TransportError:
            return False

    try:
        until(answers, failed=lambda: process.poll() is not None and (folder / "mlflow.log").read_text())
        yield url
    finally:
        process.terminate()
        process.wait()
        kept.close()


def try_mlflow(folder: Path) -> None:
    refused = refusal("models:/digits/1", InvalidArgument)
    assert "set MLFLOW_TRACKING_URI" in refused
    with mlflow_server(folder) as url:
        os.environ["MLFLOW_TRACKING_URI"] = url
        mlflow, linear_model = import_module("mlflow"), import_module("sklearn.linear_model")
        import_module("mlflow.sklearn")
        for slope in (1.0, 2.0):
            fitted = linear_model.LinearRegression().fit([[0.0], [1.0]], [0.0, slope])
            with mlflow.start_run() as run:
                mlflow.sklearn.log_model(fitted, name="model", registered_model_name="digits")
        client = mlflow.MlflowClient()
        client.set_registered_model_alias("digits", "champion", "1")
        assert look("models:/digits@champion") == "1" and look("models:/digits/latest") == "2"
        by_alias = fetched("models:/digits@champion")
        assert by_alias.source.startswith("models:/digits/1#sha256=")
        assert fetched("models:/digits/latest").source.startswith("models:/digits/2#sha256=")
        client.set_registered_model_alias("digits", "champion", "2")
        assert look("models:/digits@champion") == "2"
        moved = fetched("models:/digits@champion")
        assert moved.source.startswith("models:/digits/2#sha256=") and moved.source != by_alias.source
        assert fetched(by_alias.source).source == by_alias.source
        with package("models:/digits/2") as artifact, package(f"runs:/{run.info.run_id}/model") as same:
            assert artifact.framework == same.framework == "mlflow"
            assert artifact.deployed["source"] == moved.source
        for text in ("models:/none/1", "models:/digits/7", "models:/digits@none"):
            assert "MLflow's registry has no" in refusal(text, NotFound)
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    refusal("models:/digits/2", Unavailable)


if __name__ == "__main__":
    {"s3": try_s3, "gs": try_gs, "az": try_az, "oci": try_oci, "hf": try_hub, "mlflow": try_mlflow}[sys.argv[1]](
        Path(sys.argv[2])
    )
    print("all of it was tried")
