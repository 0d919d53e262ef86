"""Which paths there are."""

import pytest

from clipper.worker.frontend.inference.paths import Asked, read_path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2", Asked("server")),
        ("/v2/", Asked("server")),
        ("/v2/health/live", Asked("live")),
        ("/v2/health/ready/", Asked("ready")),
        ("/v2/models/m", Asked("model", "m")),
        ("/v2/models/m/versions/blue", Asked("model", "m", "blue")),
        ("/v2/models/m/infer", Asked("infer", "m")),
        ("/v2/models/m/versions/2/infer", Asked("infer", "m", "2")),
        ("/v2/models/m/versions/2/ready", Asked("model_ready", "m", "2")),
        ("/v2/models/m/config", Asked("config", "m")),
        ("/v2/models/m/stats", Asked("statistics", "m")),
        ("/v2/models/stats", Asked("statistics")),
        ("/v2/models/m/observe", Asked("observe", "m")),
        ("/v2/repository/index", Asked("index")),
        ("/v2/repository/models/m/unload", Asked("load", "m")),
        ("/v2/systemsharedmemory/region/r/register", Asked("shared_memory")),
        ("/v2/cudasharedmemory/status", Asked("shared_memory")),
        ("/v2/models/m/trace/setting", Asked("trace", "m")),
        ("/v2/logging", Asked("logging")),
        ("/v1/models/m", None),
        ("/v2x", None),
        ("/v2/models", None),
        ("/v2/models/m/infer/more", None),
        ("/v2/models/m/versions/2/infer/more", None),
        ("/v2/models/m/generate", None),
        ("/v2/predict", None),
        ("/app/predict", None),
        ("", None),
    ],
)
def test_paths(path: str, expected: Asked | None) -> None:
    assert read_path(path.encode()) == expected
