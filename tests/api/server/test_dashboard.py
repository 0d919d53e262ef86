"""The dashboard's files over a real socket: whoever asks gets them, and nothing else."""

import http.client
import re

import httpx
import pytest

from clipper.api.dashboard.files import read_files
from tests.conftest import READ_TOKEN, TOKEN, Api
from tests.waiting import TIMEOUT_S

SERVED = sorted(read_files())


def get(api: Api, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    """As a browser asks, before it has a token."""
    return httpx.request(method, api.url + path, headers=headers, timeout=TIMEOUT_S)


@pytest.mark.parametrize("path", ["/", "/dashboard"])
def test_the_address_alone_leads_to_it(api: Api, path: str) -> None:
    answer = get(api, path)
    assert (answer.status_code, answer.headers["location"]) == (307, "dashboard/")
    followed = httpx.get(api.url + path, follow_redirects=True, timeout=TIMEOUT_S)
    assert followed.text == read_files()["/dashboard/"].content.decode()


def test_every_file_has_its_exact_type_and_the_policy() -> None:
    types = {path.rpartition(".")[2]: file.media_type for path, file in read_files().items() if "." in path}
    assert types == {
        "css": "text/css; charset=utf-8",
        "js": "text/javascript; charset=utf-8",
        "json": "application/json",
        "svg": "image/svg+xml",
        "txt": "text/plain; charset=utf-8",
    }
    assert read_files()["/dashboard/"].media_type == "text/html; charset=utf-8"


def test_a_file_as_a_browser_gets_it(api: Api) -> None:
    answer = get(api, "/dashboard/main.js")
    assert answer.status_code == 200
    assert answer.content == read_files()["/dashboard/main.js"].content
    headers = answer.headers
    assert headers["content-type"] == "text/javascript; charset=utf-8"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-cache"
    assert headers["referrer-policy"] == "no-referrer"
    policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "img-src", "connect-src")} == {"'self'"}
    assert {policy[name] for name in ("base-uri", "form-action", "frame-ancestors", "trusted-types")} == {"'none'"}
    assert "unsafe" not in headers["content-security-policy"]


def test_a_head_has_all_but_the_body(api: Api) -> None:
    whole, head = get(api, "/dashboard/"), get(api, "/dashboard/", "HEAD")
    assert head.content == b"" and head.status_code == 200
    assert {**head.headers, "date": ""} == {**whole.headers, "date": ""}


def test_a_browser_with_a_copy_is_told_that_it_is_good(api: Api) -> None:
    etag = get(api, "/dashboard/style.css").headers["etag"]
    for value in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = get(api, "/dashboard/style.css", **{"If-None-Match": value})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag), value
    assert get(api, "/dashboard/style.css", **{"If-None-Match": '"other"'}).status_code == 200
    assert get(api, "/dashboard/main.js", **{"If-None-Match": etag}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/dashboard/../status",
        "/dashboard/%2e%2e/status",
        "/dashboard/..%2fstatus",
        "/dashboard/../files.py",
        "/dashboard/..%2f..%2fhome.py",
        "/dashboard//etc/passwd",
        "/dashboard/vendor",
        "/dashboard/vendor/",
        "/dashboard/main.js/",
        "/dashboard/main.js%00",
        "/dashboard/index.html",
        "/dashboard/__init__.py",
        "/dashboardx",
    ],
)
def test_other_paths_lead_nowhere(api: Api, path: str) -> None:
    for token, expected in (("", 401), (TOKEN, 404), (READ_TOKEN, 404)):
        # httpx would tidy the path first.
        connection = http.client.HTTPConnection(api.url.removeprefix("http://"), timeout=TIMEOUT_S)
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"} if token else {})
        assert connection.getresponse().status == expected
        connection.close()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_files_are_only_read(api: Api, method: str) -> None:
    for path in ("/", "/dashboard/", "/dashboard/main.js"):
        answer = get(api, path, method)
        assert (answer.status_code, answer.json()["error"]) == (405, "method_not_allowed")
        assert answer.headers["allow"] == "GET, HEAD"


def test_other_hosts_and_other_sites_get_no_files(api: Api) -> None:
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        assert get(api, "/dashboard/", **headers).status_code == 403


def test_what_a_page_loads_is_served(api: Api) -> None:
    page = get(api, "/dashboard/").text
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert {"main.js", "style.css", "vendor/uplot.css", "icon.svg"} == set(loaded)
    for name in loaded:
        assert get(api, f"/dashboard/{name}").status_code == 200
