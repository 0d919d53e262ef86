"""Artifacts go through a real Redis from a leader to its standby."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from clipper.errors import TooLarge
from clipper.settings.version import Batching, VersionSpec
from clipper.supervisor.artifacts import shared as shared_module
from clipper.supervisor.artifacts.shared import SharedArtifacts, fetch_missing
from clipper.supervisor.artifacts.store import Artifacts
from clipper.supervisor.registry import shared as shared_registry
from clipper.supervisor.registry.records import ApplicationRecord, ModelRecord, VersionRecord
from clipper.supervisor.registry.redis import RedisRegistry
from clipper.supervisor.registry.shared import Holder
from clipper.supervisor.registry.store import Put
from tests.redis_server import RedisServer
from tests.supervisor.tar_files import file, tar_of


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisRegistry]:
    for module in (shared_module, shared_registry):
        monkeypatch.setattr(module, "PIECE_BYTES", 1000)
    (tmp_path / "redis").mkdir()
    with RedisServer(tmp_path / "redis") as server:
        server.start()
        with closing(RedisRegistry(server.url, Holder("a", "http://a"))) as registry:
            registry.acquire()
            yield registry


def folder(path: Path) -> Path:
    path.mkdir()
    return path


async def one_chunk(data: bytes) -> AsyncIterator[bytes]:
    yield data


def test_a_standby_gets_what_records_name_and_nothing_else(registry: RedisRegistry, tmp_path: Path) -> None:
    tars = [tar_of(file("code/m.py", os.urandom(size))) for size in (20_000, 10, 10)]
    model, code, unused = (hashlib.sha256(tar).hexdigest() for tar in tars)
    here = Artifacts(folder(tmp_path / "here"), copies=SharedArtifacts(registry))
    there = Artifacts(folder(tmp_path / "there"))

    async def run() -> None:
        for digest, tar in zip((model, code, unused), tars):
            assert await here.add(digest, one_chunk(tar))
            assert here.renew(digest)
        spec = VersionSpec(model, "import", "m:predict")
        version = VersionRecord("m", "1", spec, Batching(), cache=True, replicas_wanted=1, created_at=1e9)
        application = ApplicationRecord("app", "string", 20.0, code=code)
        registry.write(Put(ModelRecord("m")), Put(version), Put(application))
        await fetch_missing(registry, there)
        await fetch_missing(registry, there)

    asyncio.run(run())
    assert (there.has(model), there.has(code), there.has(unused)) == (True, True, False)
    for digest in (model, code):
        content = (tmp_path / "there" / digest / "code" / "m.py").read_bytes()
        assert content == (tmp_path / "here" / digest / "code" / "m.py").read_bytes()
    here.remove(unused)
    assert sorted(registry.artifact_sizes()) == sorted([model, code])
    # The fetch does not fail if the registry has lost an artifact.
    registry.remove_artifact(model)
    there.remove(model)
    asyncio.run(fetch_missing(registry, there))
    assert not there.has(model)


def test_an_artifact_older_than_the_shared_registry_is_uploaded_again(registry: RedisRegistry, tmp_path: Path) -> None:
    tar = tar_of(file("code/m.py", b"code"))
    digest = hashlib.sha256(tar).hexdigest()
    asyncio.run(Artifacts(folder(tmp_path / "here")).add(digest, one_chunk(tar)))
    artifacts = Artifacts(tmp_path / "here", copies=SharedArtifacts(registry))
    assert not artifacts.renew(digest)
    asyncio.run(artifacts.add(digest, one_chunk(tar)))
    assert artifacts.renew(digest) and list(registry.artifact_sizes()) == [digest]


def test_what_is_too_large_for_redis_is_refused(
    registry: RedisRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_registry, "MAX_ARTIFACT_BYTES", 100)
    tar = tar_of(file("code/m.py", b"code"))
    artifacts = Artifacts(folder(tmp_path / "here"), copies=SharedArtifacts(registry))
    with pytest.raises(TooLarge, match="at most 100"):
        asyncio.run(artifacts.add(hashlib.sha256(tar).hexdigest(), one_chunk(tar)))
    assert registry.artifact_sizes() == {}
