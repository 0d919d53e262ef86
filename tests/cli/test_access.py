"""Tokens, keys and the link to the dashboard."""

import re
import time

import pytest

from tests.cli.in_process import Run
from tests.conftest import READ_TOKEN, TOKEN, Api


def test_tokens(run: Run, api: Api) -> None:
    assert "no tokens but the server's own" in run("token", "list").out
    made = run("token", "create", "grafana")
    assert made.out.splitlines()[0] == "clipper_of_grafana"
    assert run("token", "create", "deployer", "--role", "admin", "--json").json["role"] == "admin"
    assert run("token", "create", "x", "--role", "god").status == 2
    listed = run("token", "list").out
    assert re.search(r"grafana +read +2023-11-14 22:13 UTC", listed) and "clipper_of" not in listed
    assert run("token", "revoke", "grafana").status == 0
    assert run("token", "revoke", "grafana").status == 1


@pytest.mark.parametrize("kind", ["key", "token"])
def test_one_that_expires_is_listed_with_the_time_that_is_left(run: Run, api: Api, kind: str) -> None:
    before_s = time.time()
    at_s = run(kind, "create", "guest", "--expires", "90d", "--json").json["expires_at"]
    assert before_s + 90 * 86400 <= at_s <= time.time() + 90 * 86400
    run(kind, "create", "me")
    listed = run(kind, "list").out
    assert re.search(r"guest .* in 90 days \(20", listed) and re.search(r"me .* never", listed)
    for wrong in ("90", "-1d", "d", "1e9d", "2020-01-32"):
        assert run(kind, "create", "wrong", f"--expires={wrong}").status == 2, wrong
    dated = run(kind, "create", "dated", "--expires", "2999-01-31T12:00+00:00", "--json")
    assert dated.json["expires_at"] == 32_474_779_200


@pytest.mark.parametrize("kind", ["key", "token"])
def test_a_secret_is_alone_on_standard_output(run: Run, kind: str) -> None:
    made = run(kind, "create", "me")
    assert made.status == 0
    [secret] = made.out.splitlines()
    assert secret.startswith("clipper") and "keep it where nobody else reads it" in made.err


def test_a_link_to_the_dashboard_logs_in(run: Run, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("dashboard")
    # The link alone, for a pipe; what it is worth is said beside it.
    assert result.out == f"{api.url}/dashboard/#token={TOKEN}\n"
    assert "has the token" in result.err
    assert run("dashboard", "--url", api.url, "--json").json == {"url": f"{api.url}/dashboard/#token={TOKEN}"}
    monkeypatch.setenv("CLIPPER_TOKEN", READ_TOKEN)
    assert READ_TOKEN in run("dashboard").out
    monkeypatch.setenv("CLIPPER_TOKEN", "x" * 40)
    refused = run("dashboard")
    assert (refused.status, refused.out) == (1, "") and "token" in refused.err
