"""Which paths there are."""

import pytest

from clipper.worker.frontend.inference.paths import Target, read_path


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/v2", Target("server")),
        ("/v2/", Target("server")),
        ("/v2/health/live", Target("live")),
        ("/v2/health/ready/", Target("ready")),
        ("/v2/models/m", Target("model", "m")),
        ("/v2/models/m/versions/blue", Target("model", "m", "blue")),
        ("/v2/models/m/infer", Target("infer", "m")),
        ("/v2/models/m/versions/2/infer", Target("infer", "m", "2")),
        ("/v2/models/m/versions/2/ready", Target("model_ready", "m", "2")),
        ("/v2/models/m/config", Target("config", "m")),
        ("/v2/models/m/stats", Target("statistics", "m")),
        ("/v2/models/stats", Target("statistics")),
        ("/v2/models/m/observe", Target("observe", "m")),
        ("/v2/repository/index", Target("index")),
        ("/v2/repository/models/m/unload", Target("load", "m")),
        ("/v2/systemsharedmemory/region/r/register", Target("shared_memory")),
        ("/v2/cudasharedmemory/status", Target("shared_memory")),
        ("/v2/models/m/trace/setting", Target("trace", "m")),
        ("/v2/models/m/generate_stream", Target("parts", "m")),
        ("/v2/models/m/versions/2/infer_stream", Target("parts", "m", "2")),
        ("/v2/logging", Target("logging")),
        ("/v1/models/m", None),
        ("/v2x", None),
        ("/v2/models", None),
        ("/v2/models/m/infer/more", None),
        ("/v2/models/m/versions/2/infer/more", None),
        ("/v2/models/m/generated", None),
        ("/v2/predict", None),
        ("/app/predict", None),
        ("", None),
    ],
)
def test_paths(path: str, expected: Target | None) -> None:
    assert read_path(path.encode()) == expected
