"""Pages of other sites ask the query port, in a real browser."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.api.dashboard.browser import chromium
from tests.serving import application, model, serving, version


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>a page</title>")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name in the standard library
        pass


@contextmanager
def site() -> Iterator[int]:
    """The port of a server of pages."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


# As text a browser sends it without asking first, and hides the answer. As JSON it asks first.
SENDS = """
async ([url, kind]) => {
  const body = JSON.stringify({input: [1, 2], label: 3})
  try {
    const mode = kind == "text/plain" ? "no-cors" : "cors"
    const answer = await fetch(url, {method: "POST", mode, body, headers: {"content-type": kind}})
    return answer.type == "opaque" ? "hidden" : answer.status
  } catch (error) {
    return "failed"
  }
}
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("host", "allowed", "as_text", "as_json", "feedback"),
    [
        ("localhost", (), "hidden", "failed", 0),  # to a browser this is another site than 127.0.0.1
        ("localhost", ("https://shop.example",), "hidden", "failed", 0),
        ("localhost", ("http://localhost:{port}",), "hidden", 200, 2),
        ("localhost", ("*",), "hidden", 200, 2),
        ("127.0.0.1", (), "hidden", "failed", 1),  # of the same site
    ],
)
def test_a_page_of_another_site_teaches_nothing_unless_it_is_allowed(
    host: str, allowed: tuple[str, ...], as_text: str, as_json: str | int, feedback: int
) -> None:
    with serving() as system, site() as port, chromium() as browser:
        system.start_worker(allowed_origins=[each.format(port=port) for each in allowed])
        replica = system.start_container(input_type="float64[2]")
        system.apply([application(input_type="float64[2]")], [model(version(replica, input_type="float64[2]"))])
        page = browser.new_page()
        page.goto(f"http://{host}:{port}/")
        url = f"http://127.0.0.1:{system.port}/app/observe"
        assert page.evaluate(SENDS, [url, "text/plain"]) == as_text
        assert page.evaluate(SENDS, [url, "application/json"]) == as_json
        selection = system.worker.application("app").selection
        assert selection is not None and sum(selection.feedback.values()) == feedback
