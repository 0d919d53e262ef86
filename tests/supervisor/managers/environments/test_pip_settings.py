"""uv is told what pip is set to."""

import pytest

from clipper.supervisor.managers.environments.uv_settings import parse_pip_config, uv_options, uv_variables

LISTED = """
:env:.cert='/etc/ssl/mine.pem'
:env:.find-links='/opt/wheels'
global.constraint='/etc/one.txt\\n/etc/two.txt'
global.find-links='/srv/wheels'
global.index-url='https://one.example/simple'
global.no-index='false'
install.index-url='https://two.example/simple'
list.format='columns'
not a setting
"""


def test_pip_settings_are_read_and_the_environment_wins() -> None:
    found = parse_pip_config(LISTED)
    assert found["cert"] == "/etc/ssl/mine.pem"
    assert found["find-links"] == "/opt/wheels"
    assert found["index-url"] == "https://two.example/simple"
    assert found["constraint"] == "/etc/one.txt\n/etc/two.txt"
    assert "format" not in found


def test_settings_become_variables_of_uv() -> None:
    assert uv_variables(parse_pip_config(LISTED), {}) == {
        "SSL_CERT_FILE": "/etc/ssl/mine.pem",
        "UV_CONSTRAINT": "/etc/one.txt /etc/two.txt",
        "UV_DEFAULT_INDEX": "https://two.example/simple",
        "UV_FIND_LINKS": "/opt/wheels",
    }


def test_several_indexes_are_as_good_as_one() -> None:
    found = uv_variables({"extra-index-url": "https://a.example https://b.example"}, {})
    assert found == {"UV_INDEX": "https://a.example https://b.example", "UV_INDEX_STRATEGY": "unsafe-best-match"}


@pytest.mark.parametrize("variable", ["UV_DEFAULT_INDEX", "UV_INDEX_URL"])
def test_what_is_set_for_uv_wins(variable: str) -> None:
    assert uv_variables({"index-url": "https://pip.example"}, {variable: "https://uv.example"}) == {}


@pytest.mark.parametrize(("value", "options"), [("1", ("--no-index",)), ("true", ("--no-index",)), ("0", ()), ("", ())])
def test_no_index_is_an_option(value: str, options: tuple[str, ...]) -> None:
    assert uv_options({"no-index": value}) == options


def test_prereleases_are_allowed_if_pip_allows_them() -> None:
    assert uv_variables({"pre": "yes"}, {}) == {"UV_PRERELEASE": "allow"}
    assert uv_variables({"pre": "no"}, {}) == {}
