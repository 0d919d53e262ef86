"""The engines of HTTP/2 on which the port's tests run."""

import pytest

from clipper.worker.frontend.rpc import pure_http2, session


@pytest.fixture(params=["ngh2", "h2"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run the test on libnghttp2, and again on h2, which knows HTTP/2 where ngh2 is not installed."""
    if request.param == "h2":
        monkeypatch.setattr(session, "ngh2", pure_http2)
    return str(request.param)
