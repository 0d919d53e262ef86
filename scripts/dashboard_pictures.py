"""Make the pictures of docs/dashboard.md: ``make dashboard-pictures``, eight minutes.

A server of its own serves real models of iris flowers under load, while a version is deployed over another and the load
rises for a while. Then Debian's Chromium looks at it. After that comes an incident: a model that crashes each time it
starts, one that fails on every query, a bad version that is stopped, and an application whose threshold asks for
defaults.

Each step is told. What asks and looks is a process of its own, so that a run that takes twice as long as it should is
ended, with its browser and its server, and fails.
"""

import argparse
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser
from sklearn.datasets import load_iris
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from clipper import Clipper
from clipper.errors import ClipperError
from clipper.settings.home import read_token
from clipper.settings.replicas import ReplicaRange
from tests.api.dashboard.browser import Screen, chromium

DOCS = Path(__file__).parents[1] / "docs"
CLIPPER = (sys.executable, "-c", "from clipper.cli.main import main; main()")
# The charts show five minutes.
LOADED_S = 280.0
# Parts of that time. The newcomer is still ramped at its end.
DEPLOY_AT, NEWCOMER_AT = 0.2, 0.85
BUSY_FROM, BUSY_TO = 0.45, 0.65
QUERIES_PER_S, BUSY_QUERIES_PER_S = 15.0, 70.0
# A bad version among five applications has had its share by then.
INCIDENT_S = 120.0
# The start, two dozen models and the browser take this on a busy machine, in addition to twice the above.
OTHERWISE_S = 300.0
# The pages ask for new values every two seconds, and then draw them.
SETTLED_MS = 5000.0
# As large as the difference between two kinds of iris, so that models err.
NOISE_CM = 0.5


def step(text: str) -> None:
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


@contextmanager
def meanwhile(*parts: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run the parts in threads until the body ends; each returns once its event is set."""
    over = threading.Event()
    threads = [threading.Thread(target=part, args=(over,), daemon=True) for part in parts]
    for thread in threads:
        thread.start()
    yield
    over.set()
    for thread in threads:
        thread.join()


def ask(home: Path, rate_per_s: float, from_s: float, to_s: float, seed: int, over: threading.Event) -> None:
    """Ask for flowers and tell what they are, from one time after the start to another, or until it is over."""
    random = np.random.default_rng(seed)
    rows, kinds = load_iris(return_X_y=True)
    began_s = time.monotonic()
    time.sleep(from_s)
    with Clipper.connect(home=home) as clipper:
        while not over.is_set() and time.monotonic() - began_s < to_s:
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
    made.page.wait_for_timeout(SETTLED_MS)
    return made


def save(folder: Path, made: Screen, name: str) -> None:
    made.page.screenshot(path=folder / f"dashboard-{name}.png")
    made.context.close()


def look(screen: Callable[..., Screen], folder: Path) -> None:
    """Save a picture of each page of a server that is well."""
    save(folder, screen("", 1280, 760), "overview")
    application = screen("applications/flowers", 1100, 1000)
    section = application.page.locator("section", has_text="Regret and confidence")
    section.get_by_role("img").first.wait_for()
    section.screenshot(path=folder / "dashboard-confidence.png")
    application.page.evaluate("scrollTo(0, 0)")
    save(folder, application, "application")
    save(folder, screen("models/forest", 1100, 1600, "dark"), "model")
    tried = screen("applications/flowers/try", 390, 844)
    for place, value in enumerate((6.1, 2.8, 4.7, 1.2)):
        tried.page.get_by_label(str(place), exact=True).fill(str(value))
    tried.page.get_by_role("button", name="Ask").click()
    tried.page.get_by_role("region", name="Output").wait_for()
    save(folder, tried, "try")


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


def ask_all(home: Path, over: threading.Event) -> None:
    """Ask every application, and tell what the flowers are."""
    random = np.random.default_rng(4)
    rows, kinds = load_iris(return_X_y=True)
    with Clipper.connect(home=home) as clipper:
        while not over.is_set():
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


def look_at_incident(screen: Callable[..., Screen], folder: Path) -> None:
    """Save what an operator sees of it, at a desk and on a phone."""
    save(folder, screen("", 1280, 1050), "incident")
    save(folder, screen("applications/bouquets", 390, 844, "dark"), "incident-application")
    save(folder, screen("events", 390, 844), "events")


def take(home: Path, folder: Path, loaded_s: float, incident_s: float) -> None:
    """Take all pictures of the server of a home."""
    with Clipper.connect(home=home) as clipper, chromium() as browser:
        step("the first models are deployed")
        set_up(clipper)
        step(f"flowers are asked about for {loaded_s:.0f} s")
        token = read_token(home)
        assert token is not None
        screen = partial(open_at, browser, clipper.status().management_url, token)
        busy = partial(ask, home, BUSY_QUERIES_PER_S, BUSY_FROM * loaded_s, BUSY_TO * loaded_s)
        with meanwhile(partial(ask, home, QUERIES_PER_S, 0.0, math.inf, 1), partial(busy, 2), partial(busy, 3)):
            end_s = time.monotonic() + loaded_s
            time.sleep(DEPLOY_AT * loaded_s)
            second = LogisticRegression(max_iter=1000).fit(*load_iris(return_X_y=True))
            clipper.deploy("linear", second, output="probabilities", description="of three kinds")
            time.sleep(max(0.0, end_s - (1 - NEWCOMER_AT) * loaded_s - time.monotonic()))
            deeper = RandomForestClassifier(80, max_depth=6, random_state=3).fit(*load_iris(return_X_y=True))
            clipper.deploy("forest", deeper, output="probabilities", description="of deeper trees")
            time.sleep(max(0.0, end_s - time.monotonic()))
            step("pictures are taken")
            look(screen, folder)
        step(f"an incident goes on for {incident_s:.0f} s")
        begin_incident(clipper, home)
        with meanwhile(partial(ask_all, home)):
            time.sleep(incident_s)
            step("pictures of the incident are taken")
            look_at_incident(screen, folder)


def run_within(limit_s: float, command: list[str]) -> None:
    """Run a command, and end it with all processes that it started if it takes longer."""
    with subprocess.Popen(command, start_new_session=True) as process:
        try:
            status = process.wait(limit_s)
        except subprocess.TimeoutExpired as error:
            raise SystemExit(f"the pictures were not taken within {limit_s:.0f} s: see the last step") from error
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if status:
        raise SystemExit(f"the pictures could not be taken: status {status}, see the last step")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=DOCS, help="where the pictures go")
    parser.add_argument("--loaded-s", type=float, default=LOADED_S, help="how long the server is asked before")
    parser.add_argument("--incident-s", type=float, default=INCIDENT_S, help="how long the incident goes on")
    parser.add_argument("--limit-s", type=float, help="after how long the run is ended")
    parser.add_argument("--home", type=Path, help="the home of a server that runs already; else one is started")
    given = parser.parse_args()
    if given.home is not None:
        take(given.home, given.folder, given.loaded_s, given.incident_s)
        return
    limit_s = given.limit_s or 2 * (given.loaded_s + given.incident_s) + OTHERWISE_S
    with tempfile.TemporaryDirectory() as home:
        options = ("--home", home)
        ports = ("--query-port", "0", "--management-port", "0", "--grpc-port", "off")
        try:
            step("the server starts")
            subprocess.run([*CLIPPER, "start", *options, *ports], check=True, stdout=subprocess.DEVNULL)
            run_within(limit_s, [sys.executable, __file__, *sys.argv[1:], *options])
        finally:
            subprocess.run([*CLIPPER, "stop", *options], check=False, stdout=subprocess.DEVNULL, timeout=120)
    step(f"the pictures are in {given.folder}")


if __name__ == "__main__":
    main()
