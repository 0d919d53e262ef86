"""The dashboard of a real server: queries that real models answer, and a supervisor that goes and comes back."""

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browser import Screen, chromium
from live_server import APP, Server
from playwright.sync_api import expect
from populated import HOSTILE

from waiting import until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "home")
    yield server
    server.clean_up()


def test_a_real_server_that_goes_and_comes_back(server: Server) -> None:
    server.start()
    code = f"print({HOSTILE!r}, flush=True)\ndef predict(inputs): return ['one' for _ in inputs]\n"
    assert server.deploy("m", code, input_type="float64[2]", description=HOSTILE)["state"] == "ready"
    server.call("POST", "/applications", {**APP, "policy": "exp3"})
    with chromium() as browser:
        screen = Screen(browser, server.place.management_url)
        page = screen.page
        screen.log_in(server.token, "models/m")
        assert HOSTILE in screen.text
        screen.go("models/m/logs")
        expect(page.get_by_role("region", name="Log of m:1#1")).to_contain_text(HOSTILE)

        screen.go("applications/app/try")
        page.get_by_role("button", name="Ask").click()
        expect(page.get_by_role("region", name="Output")).to_have_text('"one"')
        page.get_by_role("button", name="Send feedback").click()
        expect(page.get_by_text("The feedback is kept")).to_be_visible()
        for key, why in (("€", "a token or key has only letters"), ("k" * 40, "Answered by m:1.")):
            page.get_by_label("Key").fill(key)
            page.get_by_role("button", name="Ask").click()
            expect(page.get_by_text(why)).to_be_visible()

        screen.go("applications/app")
        # Of every kind of value: what feedback taught, what the metrics have, and what was recorded.
        expect(page.get_by_role("region", name="Models")).to_contain_text("m")
        expect(page.get_by_role("img", name="Queries: queries is")).to_be_visible()
        expect(page.get_by_text("Regret: 0")).to_be_visible()
        screen.go("events")
        expect(page.get_by_role("region", name="Events")).to_contain_text("model m, version 1")

        port = urlsplit(server.place.management_url).port
        server.kill()
        expect(page.get_by_text("The server has not answered since")).to_be_visible()
        assert "model m, version 1" in screen.text
        server.start("--management-port", str(port))
        until(lambda: not page.get_by_text("The server has not answered since").is_visible())
        screen.go("", "Overview")
        expect(page.get_by_text("Ready to take queries")).to_be_visible()
        # The token was replaced meanwhile.
        (server.home / "token").write_text("n" * 40)
        expect(page.get_by_label("Token")).to_be_visible()
        expect(page.get_by_role("alert")).to_contain_text("does not know the token")
        assert [fault for fault in screen.faults if "ERR_" not in fault] == []
