"""The dashboard's pages in a real browser, over operations in memory."""

from collections.abc import Iterator

import msgspec
import pytest
from playwright.sync_api import Browser, expect

from clipper.api.learned import Newcomer, Watched
from clipper.api.recent import LastMinute
from clipper.api.schemas import GpuStatus
from clipper.control.descriptions import EndedRamp
from clipper.settings.application import Link
from clipper.settings.pipeline import Step
from clipper.supervisor.history.event_log import NewEvent
from tests.api.dashboard.browser import Screen, chromium
from tests.api.dashboard.populated import HOSTILE, crash, populate
from tests.conftest import READ_TOKEN, TOKEN, Api
from tests.waiting import until

pytestmark = pytest.mark.long

APP, MODEL = "applications/app-0000", "models/model-0000"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One for the file: Playwright's loop would be in the way of other files' own."""
    with chromium() as browser:
        yield browser


@pytest.fixture
def screen(browser: Browser, api: Api) -> Iterator[Screen]:
    screen = Screen(browser, api.url)
    yield screen
    screen.context.close()
    assert screen.faults == []


def test_a_wrong_token_and_then_the_right_one(screen: Screen) -> None:
    page = screen.page
    page.goto(screen.url)
    for wrong in ("clipper_" + "w" * 43, "ä b"):
        page.get_by_label("Token").fill(wrong)
        page.get_by_role("button", name="Log in").click()
        expect(page.get_by_role("alert")).to_contain_text("token")
        assert screen.violations() == []
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    # It is kept in the tab alone, and neither in its address nor as a cookie.
    page.reload()
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    assert TOKEN not in page.url and screen.context.cookies() == []
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Token")).to_be_visible()
    page.reload()
    expect(page.get_by_label("Token")).to_be_visible()


def test_a_link_with_the_token_logs_in_also_where_the_page_is_open(screen: Screen) -> None:
    screen.page.goto(f"{screen.url}/dashboard/")
    expect(screen.page.get_by_label("Token")).to_be_visible()
    screen.log_in(TOKEN)
    assert screen.page.url == f"{screen.url}/dashboard/#/"
    # Going back does not lead to the token either.
    screen.page.go_back()
    assert TOKEN not in screen.page.url


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_every_page_with_so_many_models(screen: Screen, api: Api, count: int) -> None:
    populate(api.operations, count)
    api.operations.causes = ["no query worker is ready"] if count == 1 else []
    screen.log_in(TOKEN)
    wheres = ["", "events", "logs", "nowhere"]
    wheres += [APP, f"{APP}/try", MODEL, f"{MODEL}/logs"] if count else [APP]
    for where in wheres:
        screen.go(where)
        assert not screen.is_too_wide
        # A page on one thing is the same however many others there are, and axe takes most of this test's time.
        if count < 1000 or where == "":
            assert screen.violations() == [], where
    screen.go("", "Overview")
    assert ("Not ready" in screen.text) == (count == 1)
    rows = screen.page.get_by_role("region", name="Models").locator("tbody tr")
    if count == 0:
        assert "clipper deploy NAME MODEL" in screen.text
    else:
        expect(rows).to_have_count(min(count, 100))
        # Problems come first.
        expect(rows.first).to_contain_text("version 2 failed")
    if count == 1000:
        screen.page.get_by_role("searchbox", name="Search models").fill("model-0999")
        expect(rows).to_have_count(1)
        screen.page.get_by_role("searchbox", name="Search models").fill("")
        screen.page.get_by_role("button", name="Show the other 900 rows").last.click()
        expect(rows).to_have_count(1000)


@pytest.mark.parametrize("width", [1280, 360])
def test_steps_of_a_pipeline_are_drawn(browser: Browser, api: Api, width: int) -> None:
    populate(api.operations, 1)
    [plain] = api.operations.applications.values()
    steps = {"language": Step(), "translate": Step(when='language == "de"'), "topic": Step(input="translate or query")}
    desk = msgspec.structs.replace(plain, name="desk", links=(), steps=steps)
    api.operations.applications["desk"] = desk
    screen = Screen(browser, api.url, width)
    screen.log_in(TOKEN)
    screen.go("applications/desk")
    expect(screen.page.get_by_role("img", name="Steps: language, translate, topic")).to_be_visible()
    rows = screen.page.get_by_role("region", name="Steps").locator("tbody tr")
    expect(rows).to_have_count(3)
    expect(rows.first.get_by_role("link")).to_have_attribute("href", "#/applications/desk.language")
    assert not screen.is_too_wide
    assert screen.violations() == []
    screen.context.close()
    assert screen.faults == []


@pytest.mark.parametrize("width", [1280, 360])
def test_gpus_are_rows_where_there_are_any(browser: Browser, api: Api, width: int) -> None:
    part = GpuStatus("MIG-41b36b44-9b1c-5a9e-b4f3-6a1e2a9d5b7c", 5 << 30, 1 << 20, None)
    screen = Screen(browser, api.url, width)
    screen.log_in(TOKEN)
    screen.go("", "Overview")
    table = screen.page.get_by_role("region", name="GPUs")
    expect(table).to_have_count(0)
    api.operations.gpus = (GpuStatus("0", 24 << 30, 6 << 30, 0.25), part)
    rows = table.locator("tbody tr")
    expect(rows).to_have_count(2)
    assert [text in rows.first.inner_text() for text in ("25 %", "6,144 MiB", "24,576 MiB")] == [True] * 3
    assert [text in rows.last.inner_text() for text in ("–", "1 MiB", "5,120 MiB")] == [True] * 3
    assert not screen.is_too_wide
    assert screen.violations() == []
    screen.context.close()
    assert screen.faults == []


@pytest.mark.parametrize(("width", "theme"), [(1280, "dark"), (360, "light")])
def test_dark_and_on_a_phone(browser: Browser, api: Api, width: int, theme: str) -> None:
    populate(api.operations, 2)
    screen = Screen(browser, api.url, width, theme)
    screen.log_in(TOKEN)
    for where in ("", "events", "logs", APP, "applications/app-0001/try", MODEL, f"{MODEL}/logs"):
        screen.go(where)
        assert screen.violations() == [], where
        assert not screen.is_too_wide, where
    assert screen.faults == []
    screen.context.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_a_name_or_message_of_any_length_is_on_the_screen(browser: Browser, api: Api, width: int) -> None:
    populate(api.operations, 2)
    crash(api.operations, "model-0001", "2", ready=0)
    long = "n" * 63
    api.operations.applications[long] = msgspec.structs.replace(api.operations.applications["app-0000"], name=long)
    api.operations.versions[long] = api.operations.versions["model-0000"]
    api.operations.current[long] = "1"
    message = f"version 2 has failed: {'e' * 200} and {HOSTILE}"
    api.operations.happen(
        NewEvent("deployment", f"model {long}", message, "2", "error"), NewEvent("rollback", f"application {long}", "m")
    )
    screen = Screen(browser, api.url, width)
    screen.log_in(TOKEN)
    # Where a reader has to scroll sideways for the reason of a fault, it is not read.
    beyond = (
        "cells => cells.filter(cell => cell.getBoundingClientRect().right > innerWidth).map(cell => cell.innerText)"
    )
    for where in ("", "events", APP, "models/model-0001", f"models/{long}"):
        screen.go(where)
        cells = screen.page.locator("tbody th, tbody td")
        expect(cells.first).to_be_visible()
        assert cells.evaluate_all(beyond) == [], where
        assert not screen.is_too_wide and screen.violations() == [], where
    screen.go("events")
    expect(screen.page.get_by_text(message)).to_be_visible()
    assert screen.faults == []
    screen.context.close()


def test_how_far_ramps_are_and_how_often_answers_are_right(screen: Screen, api: Api) -> None:
    populate(api.operations, 1)
    screen.log_in(TOKEN, APP)
    page = screen.page
    asked = page.get_by_role("region", name="Versions that it asks").locator("tbody tr")
    expect(asked).to_have_text("model-00001, the current oneready1 of 1–")
    assert "Newcomers" not in screen.text
    expect(page.get_by_text("clipper app update app-0000 --calibrate")).to_be_visible()
    ramped = Newcomer("model-0000", "3", "1", 0.05, 30, 700, 200, 0.25, 0.125, None)
    waiting = msgspec.structs.replace(ramped, version="4", feedback=260)
    stopped = msgspec.structs.replace(ramped, version="5", feedback=240, mean_loss=0.404, stopped=HOSTILE)
    unknown = msgspec.structs.replace(ramped, version="6", feedback=0, mean_loss=None, stopped="it lost more")
    ended = EndedRamp("model-0000", "2", 1_700_000_000.0, 200, 3800, 0.25, 0.125)
    api.operations.applications["app-0000"] = msgspec.structs.replace(
        api.operations.applications["app-0000"],
        newcomers=(ramped, waiting, stopped, unknown),
        ended_ramps=(ended,),
        calibrate=True,
    )
    rows = page.get_by_role("region", name="Newcomers").locator("tbody tr")
    expect(rows).to_have_count(5)
    states = ("15 % of the feedback", "waits, since", f"stopped: {HOSTILE}", "stopped: it lost more", "ended 2023-11-1")
    for row, text in enumerate(states):
        expect(rows.nth(row)).to_contain_text(text)
    # Each by the counts beside its mean loss, of which one that was stopped by an older Clipper has none.
    counts = ("30 of 200 answers", "260 of 200 answers", "240 answers", "–", "200 answers")
    for row, text in enumerate(counts):
        expect(rows.nth(row).locator("td.number").nth(1)).to_have_text(text)
    expect(page.get_by_role("img", name="Expected calibration error 0.033 as answered")).to_be_visible()
    page.get_by_text("The same as a table").click()
    expect(page.get_by_role("region", name="Calibration of svm, probability").locator("tbody tr")).to_have_count(2)
    assert screen.violations() == [] and not screen.is_too_wide


def test_a_version_is_shown_by_what_its_replicas_leave_of_it(screen: Screen, api: Api) -> None:
    populate(api.operations, 4)
    crash(api.operations, "model-0002", "2", ready=0)
    crash(api.operations, "model-0003", "2", ready=2)
    screen.log_in(TOKEN)
    rows = screen.page.get_by_role("region", name="Models").locator("tbody tr")
    # Below the one whose newest version failed, above the one that is well.
    for row, (state, ready) in {1: ("crash loop", "0 of 1"), 2: ("degraded", "2 of 3")}.items():
        expect(rows.nth(row).locator(".state")).to_have_text(state)
        expect(rows.nth(row).locator(".state")).to_have_class("state bad")
        expect(rows.nth(row).locator("strong.bad")).to_contain_text(ready)
    expect(rows.nth(3).locator(".state")).to_have_class("state good")
    # As for applications, the rate is the mean of the last minute.
    expect(rows.nth(3)).to_contain_text("2.5")
    screen.go("models/model-0002")
    current = screen.page.get_by_role("region", name="Versions").locator("tbody tr", has_text="current")
    expect(current.locator(".state")).to_have_text("crash loop")
    expect(current).to_contain_text("0 of 1")
    assert screen.violations() == []
    # The application that asks it says why it gets no answer.
    screen.go("applications/app-0002")
    asked = screen.page.get_by_role("region", name="Versions that it asks").locator("tbody tr")
    expect(asked).to_contain_text("crash loop0 of 1 (not all are ready)its process exited with code 7")


def happened(api: Api, counts: dict[str, LastMinute]) -> None:
    """Have these counts of the last minute, by application."""
    for name, one in counts.items():
        known = api.operations.applications[name]
        api.operations.applications[name] = msgspec.structs.replace(known, last_minute=one)


def test_defaults_that_a_threshold_asks_for_are_not_red(screen: Screen, api: Api) -> None:
    populate(api.operations, 3)
    asked_for = {"app-0001": LastMinute(100, 0, {"low_confidence": 25})}
    asked_for["app-0002"] = LastMinute(100, 0, {"low_confidence": 30, "timeout": 20})
    happened(api, asked_for)
    screen.log_in(TOKEN)
    table = screen.page.get_by_role("region", name="Applications")
    rows = table.locator("tbody tr")
    expect(rows.first).to_contain_text("app-0002")
    expect(rows.first.locator("strong.bad")).to_contain_text("50 %")
    expect(rows.first).to_contain_text("20 timeout")
    expect(rows.first).to_contain_text("30 % low confidence")
    expect(table.locator("tr", has_text="app-0001")).to_contain_text("25 % low confidence")
    expect(table.locator("strong.bad")).to_have_count(1)
    assert screen.violations() == []


def test_an_application_that_fails_comes_first_and_says_why(screen: Screen, api: Api) -> None:
    populate(api.operations, 3)
    explained = {"model_error": f"ValueError: {HOSTILE}"}
    counts = LastMinute(60, 2, {}, {"model_error": 58, "timeout": 2}, explained)
    happened(api, {"app-0002": counts})
    api.operations.recorded = {"app-0002": {"rate": [1.0, 1.0], "error_share.model_error": [0.5, 0.97]}}
    screen.log_in(TOKEN)
    row = screen.page.get_by_role("region", name="Applications").locator("tbody tr").first
    expect(row).to_contain_text("app-0002")
    expect(row.locator("strong.bad")).to_have_text(["97 % (less than 99 %)", "100 % (more than 1.0 %)"])
    expect(row).to_contain_text(f"58 model_error: ValueError: {HOSTILE}")
    expect(screen.page.get_by_role("status")).to_contain_text("1 application misses its objective: app-0002.")
    screen.go("applications/app-0002")
    why = screen.page.get_by_role("region", name="Queries without a model's answer").locator("tbody tr")
    expect(why).to_have_text([f"errormodel_error58 of 60ValueError: {HOSTILE}", "errortimeout2 of 60–"])
    expect(screen.page.get_by_role("img", name="Errors by reason: model_error is 0.735")).to_be_visible()
    assert screen.violations() == [] and not screen.is_too_wide


def test_a_comparison_says_what_it_rests_on(screen: Screen, api: Api) -> None:
    populate(api.operations, 1)
    api.operations.basis = "compared over all queries alike: each loss counts by one over the probability of its choice"
    screen.log_in(TOKEN, APP)
    expect(screen.page.get_by_text(f"Models are {api.operations.basis}.")).to_be_visible()
    models = screen.page.get_by_role("region", name="Models").locator("tbody tr")
    # The policy's present choice (50 %) is beside a count: 8 of 10 queries had the model's output.
    expect(models).to_have_text("model-0000150 %0.20.1 and 0.3100980 %11 %–")


def test_charts_without_values_say_why(screen: Screen, api: Api) -> None:
    populate(api.operations, 1)
    api.operations.recorded = {"app-0000": {"rate": [0.0, 0.0], "slo_ms": [20.0, 20.0], "p99_ms": [None, None]}}
    screen.log_in(TOKEN, APP)
    charts = screen.page.locator(".chart")
    said = {"Latency": "No query was answered", "Defaults by reason": "No query got the default", "Loss": "No feedback"}
    for title, why in said.items():
        expect(charts.filter(has_text=title)).to_contain_text(why)
    expect(screen.page.get_by_role("img", name="Queries: queries is 0 per second")).to_be_visible()
    assert screen.violations() == []
    # Rows were counted, and no look-up in the cache.
    api.operations.recorded = {}
    screen.go(MODEL)
    expect(charts.filter(has_text="Cache hits")).to_contain_text("No query looked")


def test_what_strangers_wrote_stays_text(screen: Screen, api: Api) -> None:
    populate(api.operations, 1)
    api.operations.causes = [HOSTILE, "x" * 2000]
    screen.log_in(TOKEN)
    for where in ("", MODEL):
        screen.go(where)
        assert HOSTILE in screen.text
        assert not screen.is_too_wide
    screen.go(APP)
    screen.page.get_by_label("Context").fill(HOSTILE)
    screen.page.get_by_role("button", name="Look it up").click()
    expect(screen.page.get_by_role("status")).to_contain_text(HOSTILE)
    screen.go(f"models/{HOSTILE.replace('/', '%2F').replace('<', '%3C')}")
    assert "taken" not in screen.page.title().replace(HOSTILE, "")
    assert screen.page.locator("main script, main img").count() == 0


def test_a_reader_sees_and_does_not_act(screen: Screen, api: Api) -> None:
    populate(api.operations, 2)
    screen.log_in(READ_TOKEN)
    for where in ("models/model-0001", "applications/app-0001"):
        screen.go(where)
        assert "…" not in screen.page.locator(".buttons").inner_text()
    screen.go("applications/app-0001/try")
    expect(screen.page.get_by_role("button", name="Ask")).to_be_disabled()
    assert "role read" in screen.page.locator("header").inner_text()


def test_an_admin_rolls_back_scales_and_changes_weights(screen: Screen, api: Api) -> None:
    populate(api.operations, 2)
    screen.log_in(TOKEN, "models/model-0001")
    page, dialog = screen.page, screen.page.get_by_role("dialog")
    page.get_by_role("button", name="Roll back …").click()
    expect(dialog).to_contain_text("Version 1 becomes current in place of 2")
    expect(dialog).to_contain_text("New queries of app-0001 go to that version.")
    assert screen.violations() == []
    page.keyboard.press("Escape")
    assert api.operations.current["model-0001"] == "2"
    page.get_by_role("button", name="Roll back …").click()
    dialog.get_by_role("button", name="Roll back").click()
    until(lambda: api.operations.current["model-0001"] == "1")
    expect(screen.page.get_by_text("Version 1 is current")).to_be_visible()

    page.get_by_role("button", name="Scale …").click()
    dialog.get_by_label("At most").fill("3")
    expect(dialog).to_contain_text("from 1 to 3")
    dialog.get_by_label("At least").fill("4")
    expect(dialog.get_by_role("button", name="Scale")).to_be_disabled()
    dialog.get_by_label("At least").fill("3")
    expect(dialog).to_contain_text("2 model processes more will start")
    dialog.get_by_role("button", name="Scale").click()
    until(lambda: api.operations.versions["model-0001"]["1"].replicas_wanted == 3)

    screen.go("applications/app-0001")
    page.get_by_role("button", name="Change the weights …").click()
    dialog.get_by_label("Weight of model-0001").fill("0")
    expect(dialog).to_contain_text("not all are 0")
    dialog.get_by_label("Weight of model-0001").fill("5")
    dialog.get_by_role("button", name="Change the weights").click()
    until(lambda: api.operations.applications["app-0001"].policy.parameters == {"weights": {"model-0001": 5}})


@pytest.mark.parametrize("where", ["", "applications/app-0001"])
def test_an_admin_lets_newcomers_in(screen: Screen, api: Api, where: str) -> None:
    populate(api.operations, 2)
    ramped = Newcomer("model-0001", "2", "1", 0.05, 30, 700, 200, 0.25, 0.125, None)
    new_to(api, "app-0001", newcomers=(ramped, msgspec.structs.replace(ramped, version="1", before="2", stopped="bad")))
    happened(api, {"app-0001": LastMinute(100, answered={"model-0001:1": 95, "model-0001:2": 5})})
    screen.log_in(TOKEN, where)
    page, dialog = screen.page, screen.page.get_by_role("dialog")
    if where == "":
        row = page.get_by_role("region", name="Applications").locator("tr", has_text="app-0001")
        expect(row).to_contain_text("model-0001:1 95 %model-0001:2 5.0 %")
        expect(row).to_contain_text("model-0001:1 was stopped")
        expect(page.get_by_role("listitem")).to_contain_text("model-0001:2 gets 5.0 % of the queries: 30 of 200")
    page.get_by_role("button", name="Promote model-0001:2 …").click()
    expect(dialog).to_contain_text("gets 5.0 % of the queries of app-0001: 30 of 200 answers with feedback")
    expect(dialog).to_contain_text("which lost 0.25 on average, the others 0.125")
    expect(dialog).to_contain_text("Later versions will get 5.0 % at first")
    assert screen.violations() == [] and not screen.is_too_wide
    dialog.get_by_role("button", name="Promote model-0001:2").click()
    # The ramp was off for a moment, which let the newcomer in.
    until(lambda: api.operations.applications["app-0001"].newcomers == ())
    until(lambda: api.operations.applications["app-0001"].ramp == 0.05)
    expect(page.get_by_role("button", name="Promote")).to_have_count(0)


def test_an_admin_stops_newcomers_from_the_first_screen(screen: Screen, api: Api) -> None:
    """Each by what makes its link ask the version before."""
    populate(api.operations, 4)
    new = Newcomer("model-0001", "2", "1", 0.05, 0, 0, 200, None, None, None)
    new_to(api, "app-0001", newcomers=(new,))
    watched = Watched("model-0002", "2", "1", 21, 200, 12, 3, 11, 0, "no weights")
    new_to(api, "app-0002", watched=(watched,), links=(Link("model-0002", "2", cost=3.0),))
    alone = msgspec.structs.replace(new, model="model-0001", before=None)
    new_to(api, "app-0003", newcomers=(alone,), links=(Link("model-0003"), Link("model-0001")))
    screen.log_in(TOKEN)
    dialog = screen.page.get_by_role("dialog")

    def stop(app: str, version: str, says: str) -> None:
        screen.page.get_by_role("listitem").filter(has_text=app).get_by_role("button", name=f"Stop {version} …").click()
        expect(dialog).to_contain_text(says)
        assert screen.violations() == []
        dialog.get_by_role("button", name=f"Stop {version}").click()
        expect(dialog).to_have_count(0)

    of = api.operations.applications
    stop("app-0003", "model-0001:2", "app-0003 will not ask model-0001:2 any more")
    assert of["app-0003"].links == (Link("model-0003"),)
    stop("app-0002", "model-0002:2", "Version 1 answers again the queries that version 2 gets from app-0002.")
    assert of["app-0002"].links == (Link("model-0002", "1", cost=3.0),)
    stop("app-0001", "model-0001:2", "Version 1 answers again the queries that version 2 gets from app-0001.")
    assert api.operations.current["model-0001"] == "1"


def new_to(api: Api, name: str, **changed: object) -> None:
    api.operations.applications[name] = msgspec.structs.replace(api.operations.applications[name], **changed)


def test_a_stopped_version_is_not_proposed_and_says_why(screen: Screen, api: Api) -> None:
    populate(api.operations, 2)
    versions, why = api.operations.versions["model-0001"], "application 'app-0001': it lost more"
    versions["1"] = msgspec.structs.replace(versions["1"], stopped=why)
    api.operations.previous["model-0001"] = None
    screen.log_in(TOKEN, "models/model-0001")
    page, dialog = screen.page, screen.page.get_by_role("dialog")
    expect(page.get_by_role("region", name="Versions")).to_contain_text(f"was stopped: {why}")
    page.get_by_role("button", name="Roll back …").click()
    expect(dialog.get_by_label("To version")).to_have_value("")
    expect(dialog).to_contain_text("No earlier version is sound.")
    expect(dialog.get_by_role("button", name="Roll back")).to_be_disabled()
    dialog.get_by_label("To version").select_option("1")
    expect(dialog.get_by_role("alert")).to_have_text(f"Version 1 was stopped: {why}")
    assert screen.violations() == []
    dialog.get_by_role("button", name="Roll back").click()
    until(lambda: api.operations.current["model-0001"] == "1")


def test_a_watched_version_says_how_often_it_fails(screen: Screen, api: Api) -> None:
    populate(api.operations, 2)
    known = api.operations.applications["app-0001"]
    watched = Watched("model-0001", "2", "1", 21, 200, 12, 3, 11, 0, "no weights")
    api.operations.applications["app-0001"] = msgspec.structs.replace(known, watched=(watched,))
    screen.log_in(TOKEN, "applications/app-0001")
    expect(screen.page.get_by_text("is new and watched: 21 of 200 answers")).to_be_visible()
    expect(
        screen.page.get_by_text("3 of 12 compared queries to it failed or were late, 0 of 11 others")
    ).to_be_visible()
    expect(screen.page.get_by_text("its last error: no weights")).to_be_visible()
    assert screen.violations() == []


def test_a_refused_action_says_why(screen: Screen, api: Api) -> None:
    populate(api.operations, 2)
    api.operations.versions["broken"] = api.operations.versions["model-0001"]
    api.operations.current["broken"], api.operations.previous["broken"] = "2", "1"
    screen.log_in(TOKEN, "models/broken")
    screen.page.get_by_role("button", name="Roll back …").click()
    dialog = screen.page.get_by_role("dialog")
    dialog.get_by_role("button", name="Roll back").click()
    expect(dialog.get_by_role("alert")).to_contain_text("broken:1 cannot start")
    dialog.get_by_role("button", name="Cancel").click()
    expect(dialog).to_have_count(0)


def test_a_query_is_tried_and_gets_feedback(screen: Screen, api: Api) -> None:
    populate(api.operations, 2)
    screen.log_in(TOKEN, "applications/app-0001/try")
    page = screen.page
    page.get_by_label("0", exact=True).fill("1.5")
    page.get_by_label("Context").fill("it's")
    expect(page.get_by_role("region", name="By curl")).to_contain_text("""curl 'http://127.0.0.1""")
    expect(page.get_by_role("region", name="By tritonclient")).to_contain_text("[[1.5, 0, 0, 0]], np.float64")
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("region", name="Output")).to_have_text("7")
    assert api.operations.asked[-1][2] == b'{"input":[1.5,0,0,0],"context":"it\'s"}'
    assert screen.violations() == []
    page.get_by_role("button", name="Send feedback").click()
    expect(page.get_by_text("The feedback is kept")).to_be_visible()
    assert api.operations.observed == [{"query_id": 1, "label": 7}]


def test_a_record_has_a_box_for_each_field(screen: Screen, api: Api) -> None:
    populate(api.operations, 2)
    found = api.operations.applications["app-0001"]
    taken = 'age: float64?, job: string, sex: string{"f", "m"}?, member: bool, visits: int64 = 1, pixels: uint8[2]'
    api.operations.applications["app-0001"] = msgspec.structs.replace(found, input_type=taken)
    screen.log_in(TOKEN, "applications/app-0001/try")
    page = screen.page
    page.get_by_label("age", exact=True).fill("")
    page.get_by_label("job", exact=True).fill("baker")
    page.get_by_role("combobox", name="sex").select_option("m")
    page.get_by_label("member", exact=True).check()
    page.get_by_label("pixels, as JSON").fill("[1, 2]")
    expect(page.get_by_role("region", name="By tritonclient")).to_contain_text('("job", "BYTES"')
    page.get_by_role("button", name="Ask").click()
    expect(page.get_by_role("region", name="Output")).to_have_text("7")
    asked = {"age": None, "job": "baker", "sex": "m", "member": True, "visits": 1, "pixels": [1, 2]}
    assert msgspec.json.decode(api.operations.asked[-1][2]) == {"input": asked}
    assert screen.violations() == []


def test_a_keyboard_is_enough(screen: Screen, api: Api) -> None:
    populate(api.operations, 1)
    screen.log_in(TOKEN)
    page = screen.page
    page.get_by_role("button", name="Log out").focus()
    for _ in range(5):
        page.keyboard.press("Shift+Tab")
    expect(page.get_by_role("link", name="Skip to the page")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#main")).to_be_focused()
    page.get_by_role("link", name="model-0000", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Model model-0000")
    # The new page has the focus, so that a screen reader reads it.
    expect(page.locator("#main")).to_be_focused()
    expect(page).to_have_title("Model model-0000 – Clipper")
