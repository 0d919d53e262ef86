"""The programs of both SDKs; what is built of C++ others use too."""

from pathlib import Path

import pytest
from programs import Programs, build_java


@pytest.fixture(scope="session")
def java_build(tmp_path_factory: pytest.TempPathFactory, tools: None) -> Path:
    folder = tmp_path_factory.mktemp("java")
    build_java(folder)
    return folder


@pytest.fixture(scope="session", params=["cpp", "java"])
def programs(request: pytest.FixtureRequest) -> Programs:
    folder: Path = request.getfixturevalue(f"{request.param}_build")
    if request.param == "cpp":
        return Programs(folder / "sum_container", folder / "acting")
    return Programs(folder / "sum.jar", folder / "acting.jar")
