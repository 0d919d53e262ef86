"""The dashboard of a real server: queries that real models answer, and a supervisor that goes and comes back."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.api.dashboard.browser import Screen, chromium
from tests.api.dashboard.populated import HOSTILE
from tests.ports import keep_port
from tests.supervisor.live_server import APP, Server, answering
from tests.waiting import until

pytestmark = pytest.mark.long


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "home")
    yield server
    server.clean_up()


def test_a_real_server_that_goes_and_comes_back(server: Server) -> None:
    held = keep_port()
    server.start("--management-port", str(held.getsockname()[1]))
    code = f"print({HOSTILE!r}, flush=True)\ndef predict(inputs): return ['one' for _ in inputs]\n"
    assert server.deploy("m", code, input_type="float64[2]", description=HOSTILE)["state"] == "ready"
    server.call("POST", "/applications", {**APP, "policy": "exp3"})
    with held, chromium() as browser:
        screen = Screen(browser, server.place.management_url)
        page = screen.page
        screen.log_in(server.token, "models/m")
        assert HOSTILE in screen.text
        screen.go("models/m/logs")
        expect(page.get_by_role("region", name="Log of m:1#1")).to_contain_text(HOSTILE)

        # Those of the server's own processes.
        screen.go("logs")
        expect(page.get_by_role("region", name="Log of supervisor")).to_contain_text("started m:1#1")
        page.get_by_role("combobox", name="Log", exact=True).select_option("worker-0")
        expect(page.get_by_role("region", name="Log of supervisor")).to_have_count(0)
        expect(page.get_by_role("region", name="Log of worker-0")).to_be_visible()

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

        server.kill()
        expect(page.get_by_text("The server has not answered since")).to_be_visible()
        assert "model m, version 1" in screen.text
        server.start("--management-port", str(held.getsockname()[1]))
        until(lambda: not page.get_by_text("The server has not answered since").is_visible())
        screen.go("", "Overview")
        expect(page.get_by_text("Ready to take queries")).to_be_visible()
        # The token was replaced meanwhile.
        (server.home / "token").write_text("n" * 40)
        expect(page.get_by_label("Token")).to_be_visible()
        expect(page.get_by_role("alert")).to_contain_text("does not know the token")
        assert [fault for fault in screen.faults if "ERR_" not in fault] == []


def test_an_incident_as_an_operator_sees_it(server: Server) -> None:
    """A model in a crash loop, a threshold that asks for defaults, a newcomer that was stopped, an idle application."""
    server.start()
    gate = server.home.parent / "gate"
    die = f"def die():\n    while not os.path.exists({str(gate)!r}): time.sleep(0.01)\n    os._exit(7)\n"
    threads = f"import os, threading, time\n{die}threading.Thread(target=die, daemon=True).start()\n"
    server.deploy("dies", threads + answering("x"), input_type="float64[2]")
    for model, answer in (("yes", "yes"), ("no", "no"), ("good", "right")):
        server.deploy(model, answering(answer), input_type="float64[2]")
    of = {"input_type": "float64[2]", "slo_ms": 20_000.0}
    server.call("POST", "/applications", {**of, "name": "crashes", "links": [{"model": "dies"}]})
    server.call("POST", "/applications", {**of, "name": "idle", "links": [{"model": "yes"}]})
    server.deploy("stillborn", "raise ImportError('no weights')\n", input_type="float64[2]")
    two = [{"model": "yes"}, {"model": "no"}]
    unsure = {"policy": "ensemble", "confidence_threshold": 0.9, "default_output": "ask somebody"}
    server.call("POST", "/applications", {**of, "name": "unsure", "links": two, **unsure})
    server.deploy("raises", "def predict(inputs):\n    raise OSError('no store')\n", input_type="float64[2]")
    server.call("POST", "/applications", {**of, "name": "fails", "links": [{"model": "raises"}]})
    for number in range(4):
        assert server.predict("fails", [number, 2.0])["error"] == "model_error"
    ramped = {"name": "ramped", "links": [{"model": "good"}], "policy": "exp3", "ramp": 0.5}
    server.call("POST", "/applications", {**of, **ramped})
    server.deploy("good", answering("wrong"))
    gate.touch()
    until(lambda: server.call("GET", "/models/dies/versions/1")["condition"] == "crash_loop")
    row = [1.0, 2.0]
    asked = [server.predict("ramped", row)["query_id"] for _ in range(60)]
    told = [{"query_id": one, "label": "right"} for one in asked]
    assert server.observe("ramped", observations=told).status_code == 200
    until(lambda: server.call("GET", "/models/good")["current"] == "1")
    with chromium() as browser:
        screen = Screen(browser, server.place.management_url)
        page = screen.page
        screen.log_in(server.token)
        # Other applications can answer, so the server is ready, but not in green.
        state = page.get_by_role("status").filter(has_text="Ready to take queries")
        expect(state).to_have_class("notice busy")
        expect(page.locator(".problems li", has_text="dies:1 has no replica that is ready")).to_be_visible()
        stillborn = page.locator(".problems li", has_text="model 'stillborn' has no version that starts")
        expect(stillborn).to_contain_text("no weights")
        dies = page.get_by_role("region", name="Models").locator("tbody tr").first
        expect(dies).to_contain_text("dies")
        expect(dies.locator(".state")).to_have_text("crash loop")
        expect(dies).to_contain_text("0 of 1")

        def is_failing() -> bool:
            server.predict("fails", [1.0, 2.0])
            raises = page.get_by_role("region", name="Models").locator("tr", has_text="raises")
            return raises.locator(".state.bad").all_inner_texts() == ["failing"]

        until(is_failing)

        def asks_somebody() -> bool:
            assert server.predict("unsure", row)["output"] == "ask somebody"
            return page.get_by_text("100 % low confidence").is_visible()

        until(asks_somebody)
        assert (
            page.get_by_role("region", name="Applications").locator("tr", has_text="unsure").locator(".bad").count()
            == 0
        )

        screen.go("applications/crashes")
        expect(page.get_by_role("region", name="Versions that it asks")).to_contain_text("exited with code 7")
        screen.go("applications/idle")
        expect(page.locator(".chart", has_text="Latency")).to_contain_text("No query was answered in this time.")
        expect(page.locator(".chart", has_text="Loss of each model")).to_contain_text("No feedback came in this time.")

        screen.go("applications/ramped")
        newcomer = page.get_by_role("region", name="Newcomers").locator("tbody tr")
        (stopped,) = server.call("GET", "/applications/ramped")["newcomers"]
        expect(newcomer).to_contain_text(f"stopped: {stopped['feedback']} of its answers with feedback lost 1.000")
        expect(newcomer.locator("td.number").nth(1)).to_have_text(f"{stopped['feedback']} answers")

        screen.go("", "Overview")
        good = page.get_by_role("region", name="Models").locator("tbody tr", has_text="good")
        expect(good).to_contain_text("ready; version 2 stopped")
        server.deploy("good", answering("right"))
        until(lambda: server.call("GET", "/applications/ramped")["newcomers"] != [])
        page.get_by_role("button", name="Promote good:3 …").click()
        page.get_by_role("dialog").get_by_role("button", name="Promote good:3").click()
        until(lambda: server.call("GET", "/applications/ramped")["newcomers"] == [])
        until(lambda: server.call("GET", "/applications/ramped")["ramp"] == 0.5)
        assert server.call("GET", "/models/good")["current"] == "3"

        screen.go("events")
        rows = page.get_by_role("region", name="Events").locator("tbody tr")
        deployed = rows.filter(has_text="model good, version 2").filter(has_text="is deployed")
        expect(deployed.locator("td").last).to_have_text("operator from 127.0.0.1")
        page.get_by_label("Who").select_option("clipper")
        expect(rows.filter(has_text="is deployed")).to_have_count(0)
        expect(rows.filter(has_text="rolled back to version 1 from version 2").locator("td").last).to_have_text(
            "clipper"
        )

        phone = Screen(browser, server.place.management_url, 390)
        phone.log_in(server.token, "events")
        message = phone.page.locator("td", has_text="ends again and again")
        message.scroll_into_view_if_needed()
        expect(message).to_be_in_viewport(ratio=1)
        assert not phone.is_too_wide and screen.faults == phone.faults == []
