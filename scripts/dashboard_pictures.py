"""Make the pictures of docs/dashboard.md: ``make dashboard-pictures``, some seven minutes.

A server of its own serves real models of iris flowers under load, while a version is deployed over another and the load
rises for a while. Then Debian's Chromium looks at it. After that comes an incident: a model that crashes each time it
starts, one that fails on every query, a bad version that is stopped, and an application whose threshold asks for
defaults.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from clipper import Clipper
from clipper.errors import ClipperError
from clipper.home import read_token
from clipper.settings.replicas import ReplicaRange
from tests.dashboard.browser import Screen, chromium

DOCS = Path(__file__).parents[1] / "docs"
CLIPPER = (sys.executable, "-c", "from clipper.cli.main import main; main()")
# The charts show five minutes.
LOADED_S = 280.0
DEPLOY_AT_S = 60.0
BUSY_FROM_S, BUSY_TO_S = 130.0, 180.0
QUERIES_PER_S, BUSY_QUERIES_PER_S = 15.0, 70.0
# A bad version among five applications has had its share by then.
INCIDENT_S = 120.0
# As large as the difference between two kinds of iris, so that models err.
NOISE_CM = 0.5


def ask(home: Path, rate_per_s: float, from_s: float, to_s: float, seed: int) -> None:
    """Ask for flowers and tell what they are, from one time after the start to another."""
    random = np.random.default_rng(seed)
    rows, kinds = load_iris(return_X_y=True)
    began_s = time.monotonic()
    time.sleep(from_s)
    with Clipper.connect(home=home) as clipper:
        while time.monotonic() - began_s < to_s:
            time.sleep(random.exponential(1 / rate_per_s))
            which = random.integers(len(rows))
            # A tenth of the flowers are asked about again, which the cache answers.
            row = np.round(rows[which] + random.normal(0, NOISE_CM, 4) * (random.random() > 0.1), 2)
            try:
                found = clipper.predict("flowers", row)
                clipper.observe("flowers", query_id=found.query_id, label=int(kinds[which]))
                if random.random() < 0.3:
                    clipper.predict("garden", row)
            except ClipperError as error:
                sys.stderr.write(f"{error}\n")


def set_up(clipper: Clipper) -> None:
    rows, kinds = load_iris(return_X_y=True)
    first = LogisticRegression(max_iter=1000).fit(rows[:, :4], np.where(kinds == 2, 1, kinds))
    clipper.deploy("linear", first, output="probabilities", description="of two kinds")
    forest = RandomForestClassifier(80, max_depth=4, random_state=1).fit(rows, kinds)
    clipper.deploy("forest", forest, output="probabilities", replicas=ReplicaRange(1, 3))
    clipper.create_application(
        "flowers",
        model=["linear", "forest"],
        policy="exp3",
        slo_ms=150,
        default_output=0,
        confidence_from="probabilities",
        calibrate=True,
    )
    clipper.create_application("garden", model="linear", slo_ms=100, default_output=0)


def open_at(
    browser: Browser, url: str, token: str, where: str, width: int, height: int, theme: str = "light"
) -> Screen:
    """Open a page of the dashboard, and wait until it shows its values."""
    made = Screen(browser, url, width, theme)
    made.page.set_viewport_size({"width": width, "height": height})
    made.log_in(token, where)
    # Charts draw once their values have come.
    made.page.wait_for_load_state("networkidle")
    return made


def save(made: Screen, name: str) -> None:
    made.page.screenshot(path=DOCS / f"dashboard-{name}.png")
    made.context.close()


def look(screen: Callable[..., Screen]) -> None:
    """Save a picture of each page of a server that is well."""
    save(screen("", 1100, 760), "overview")
    application = screen("applications/flowers", 1100, 1000)
    section = application.page.locator("section", has_text="Regret and confidence")
    section.get_by_role("img").first.wait_for()
    section.screenshot(path=DOCS / "dashboard-confidence.png")
    application.page.evaluate("scrollTo(0, 0)")
    save(application, "application")
    save(screen("models/forest", 1100, 1600, "dark"), "model")
    tried = screen("applications/flowers/try", 390, 844)
    for place, value in enumerate((6.1, 2.8, 4.7, 1.2)):
        tried.page.get_by_label(str(place), exact=True).fill(str(value))
    tried.page.get_by_role("button", name="Ask").click()
    tried.page.get_by_role("region", name="Output").wait_for()
    save(tried, "try")


def begin_incident(clipper: Clipper, home: Path) -> None:
    """Break what can break. Each cause is in what an operator deploys, none in Clipper."""
    gate = home / "gate"

    def dies(rows: list[list[float]]) -> list[int]:
        if gate.exists():
            os._exit(7)
        return [0 for _ in rows]

    def raises(rows: list[list[float]]) -> list[int]:
        raise ConnectionError("the feature store at features:6379 does not answer")

    clipper.deploy("clustering", dies, input_type="float64[4]")
    clipper.deploy("features", raises, input_type="float64[4]")
    clipper.create_application("bouquets", model="clustering", slo_ms=150, default_output=0)
    clipper.create_application("nursery", model="features", slo_ms=150)
    clipper.create_application(
        "herbarium",
        model=["linear", "forest"],
        policy="ensemble",
        slo_ms=150,
        default_output="ask a botanist",
        confidence_threshold=0.99,
    )
    rows, kinds = load_iris(return_X_y=True)
    shuffled = RandomForestClassifier(20, random_state=2).fit(rows, (kinds + 1) % 3)
    clipper.deploy("forest", shuffled, output="probabilities", description="labels of another data set")
    gate.touch()


def ask_all(home: Path, for_s: float) -> None:
    """Ask every application, and tell what the flowers are, until the incident is in the charts."""
    random = np.random.default_rng(4)
    rows, kinds = load_iris(return_X_y=True)
    until_s = time.monotonic() + for_s
    with Clipper.connect(home=home) as clipper:
        while time.monotonic() < until_s:
            time.sleep(random.exponential(1 / QUERIES_PER_S))
            which = random.integers(len(rows))
            row = np.round(rows[which] + random.normal(0, NOISE_CM, 4), 2)
            for name in ("flowers", "garden", "bouquets", "nursery", "herbarium"):
                try:
                    found = clipper.predict(name, row)
                    if name == "flowers":
                        clipper.observe(name, query_id=found.query_id, label=int(kinds[which]))
                except ClipperError:
                    pass  # it is an incident


def look_at_incident(screen: Callable[..., Screen]) -> None:
    """Save what an operator sees of it, at a desk and on a phone."""
    save(screen("", 1100, 1150), "incident")
    save(screen("applications/bouquets", 390, 844, "dark"), "incident-application")
    save(screen("events", 390, 844), "events")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        options = ("--home", folder)
        ports = ("--query-port", "0", "--management-port", "0", "--grpc-port", "off")
        subprocess.run([*CLIPPER, "start", *options, *ports], check=True)
        try:
            with Clipper.connect(home=home) as clipper:
                set_up(clipper)
                loads = [
                    threading.Thread(target=ask, args=(home, QUERIES_PER_S, 0.0, LOADED_S, 1)),
                    *(
                        threading.Thread(target=ask, args=(home, BUSY_QUERIES_PER_S, BUSY_FROM_S, BUSY_TO_S, seed))
                        for seed in (2, 3)
                    ),
                ]
                for load in loads:
                    load.start()
                time.sleep(DEPLOY_AT_S)
                rows, kinds = load_iris(return_X_y=True)
                second = LogisticRegression(max_iter=1000).fit(rows, kinds)
                clipper.deploy("linear", second, output="probabilities", description="of three kinds")
                url = clipper.status().management_url
                for load in loads:
                    load.join()
            token = read_token(home)
            assert token is not None
            with chromium() as browser:
                screen = partial(open_at, browser, url, token)
                look(screen)
                with Clipper.connect(home=home) as clipper:
                    begin_incident(clipper, home)
                ask_all(home, INCIDENT_S)
                look_at_incident(screen)
        finally:
            subprocess.run([*CLIPPER, "stop", *options], check=True)


if __name__ == "__main__":
    main()
