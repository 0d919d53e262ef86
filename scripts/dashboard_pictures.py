"""Make the pictures of docs/dashboard.md: ``make dashboard-pictures``, some five minutes.

A server of its own serves real models of iris flowers under load, while a version is deployed over another and the load
rises for a while. Then Debian's Chromium looks at it.
"""

import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from browser import Screen, chromium
from playwright.sync_api import Browser
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from clipper import Clipper
from clipper.errors import ClipperError
from clipper.home import read_token
from clipper.settings.replicas import ReplicaRange

DOCS = Path(__file__).parents[1] / "docs"
CLIPPER = (sys.executable, "-c", "from clipper.cli.main import main; main()")
# The charts show five minutes.
LOADED_S = 280.0
DEPLOY_AT_S = 60.0
BUSY_FROM_S, BUSY_TO_S = 130.0, 180.0
QUERIES_PER_S, BUSY_QUERIES_PER_S = 15.0, 70.0
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
        slo_ms=30,
        default_output=0,
        confidence_from="probabilities",
        calibrate=True,
    )
    clipper.create_application("garden", model="linear", slo_ms=20, default_output=0)


def look(browser: Browser, url: str, token: str) -> None:
    """Save each picture."""

    def screen(where: str, width: int, height: int, theme: str = "light") -> Screen:
        made = Screen(browser, url, width, theme)
        made.page.set_viewport_size({"width": width, "height": height})
        made.log_in(token, where)
        # Charts draw once their values have come.
        made.page.wait_for_load_state("networkidle")
        return made

    def save(made: Screen, name: str) -> None:
        made.page.screenshot(path=DOCS / f"dashboard-{name}.png")
        made.context.close()

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
                look(browser, url, token)
        finally:
            subprocess.run([*CLIPPER, "stop", *options], check=True)


if __name__ == "__main__":
    main()
