"""The programs of both SDKs; what is built of C++ others use too."""

from pathlib import Path

import pytest

from tests.sdk.programs import Programs, build_java, kept


@pytest.fixture(scope="session")
def java_build(tools: None) -> Path:
    return kept("java", build_java)


@pytest.fixture(scope="session", params=["cpp", "java"])
def programs(request: pytest.FixtureRequest) -> Programs:
    folder: Path = request.getfixturevalue(f"{request.param}_build")
    if request.param == "cpp":
        return Programs(folder / "sum_container", folder / "acting", folder / "record_container")
    return Programs(folder / "sum.jar", folder / "acting.jar", folder / "record.jar")
