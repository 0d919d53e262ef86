import pytest

from clipper.errors import InvalidArgument
from clipper.telemetry.open import open_exporter


def test_without_an_endpoint_nothing_is_opened() -> None:
    assert open_exporter(None, "worker-0", {}) is None


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipper.telemetry.open.has_otel", lambda: False)
    with pytest.raises(InvalidArgument, match=r"clipper-serving\[otel\]"):
        open_exporter("http://localhost:4318", "worker-0", {})
