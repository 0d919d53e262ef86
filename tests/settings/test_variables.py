"""The variables and secrets of a version: their texts, their bounds, their files, and what is shown of them."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper.base.masking import LEAST_SECRET_CHARACTERS, SECRETS_VARIABLE, masked, secrets_of
from clipper.errors import InvalidArgument, NotFound
from clipper.settings import variables
from clipper.settings.secret_files import SecretFiles
from clipper.settings.variables import (
    MAX_VALUE_BYTES,
    MAX_VARIABLES,
    check_variables,
    read_env_file,
    read_secret,
    read_variable,
    resolved,
    secret_of,
    shown_value,
    shown_values,
)


def test_variables_of_a_command_line_and_of_a_file() -> None:
    assert read_variable("URL=http://a/?b=c") == {"URL": "http://a/?b=c"}
    assert read_variable("EMPTY=") == {"EMPTY": ""}
    text = '# a comment\n\nA=1\n  B = two \nC="in quotes"\nA=3\n'
    with pytest.raises(InvalidArgument, match="line 4: 'B ' is not the name"):
        read_env_file(text)
    assert read_env_file(text.replace("  B = two \n", "  B= two \n")) == {"A": "3", "B": " two ", "C": '"in quotes"'}
    assert read_env_file("A=1\f2\u20283\x854\r\nB=5") == {"A": "1\f2\u20283\x854", "B": "5"}
    assert [secret_of(read_secret(one)) for one in ("KEY", "A=b.c")] == [("KEY", "KEY"), ("A", "b.c")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hunter2", "the text is not a variable|'hunter2' is not a variable"),
        ("my secret", "the text is not a variable"),
        ("1A=hunter2", "'1A' is not the name of a variable"),
        ("=hunter2", "'' is not the name"),
        ("HOME=hunter2", "the variable HOME is set by Clipper"),
        ("CLIPPER_PROCESS=hunter2", "the variable CLIPPER_PROCESS is set by Clipper"),
        (f"A=hunter2{'x' * MAX_VALUE_BYTES}", "the value of A is not valid"),
        ("A=hunter2\0", "the value of A is not valid"),
    ],
)
def test_a_wrong_variable_is_named_without_its_value(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message) as raised:
        read_variable(text)
    assert "=" not in text or "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    "text", ["", "../token", "a/b", ".hidden", "A=", "A=../b", "a-b", "x.tmp", "HOME", "A=b=c", "A\0"]
)
def test_texts_that_name_no_secret(text: str) -> None:
    with pytest.raises(InvalidArgument):
        read_secret(text)


def test_the_variables_of_a_version_are_bounded_and_each_has_one_value() -> None:
    check_variables({f"A{number}": "" for number in range(MAX_VARIABLES)}, ())
    with pytest.raises(InvalidArgument, match="has 101 variables: expected at most 100"):
        check_variables({f"A{number}": "" for number in range(MAX_VARIABLES)}, ("B",))
    with pytest.raises(InvalidArgument, match="the variable A has several values"):
        check_variables({"A": "1"}, ("A=b",))
    with pytest.raises(InvalidArgument, match="the variables' values are too large"):
        check_variables({f"A{number}": "x" * MAX_VALUE_BYTES for number in range(9)}, ())


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=()), max_size=20)


@given(st.dictionaries(st.sampled_from("ABC"), TEXTS), st.dictionaries(st.sampled_from("ABC"), TEXTS))
def test_what_a_server_shows_stands_for_the_values_that_it_has(one: dict[str, str], other: dict[str, str]) -> None:
    assert resolved(shown_values(one), [other, one]) == one
    assert resolved(one, [other]) == one, "a value that was given stays as it is"
    assert shown_values(shown_values(one)) == shown_values(one)
    for name, value in one.items():
        assert (shown_value(value) == shown_value(other.get(name, ""))) == (value == other.get(name, ""))


def test_a_fingerprint_that_no_version_has_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"the variable A is sha256:.*, which no version of this model has"):
        resolved({"A": shown_value("x")}, [{"A": "y"}, {"B": "x"}])


@given(TEXTS, TEXTS, TEXTS)
def test_no_line_of_a_secret_is_left_in_a_text(before: str, secret: str, after: str) -> None:
    text = masked(f"{before}{secret}{after}", [secret])
    for line in secret.splitlines():
        if len(line.strip()) >= LEAST_SECRET_CHARACTERS and "*" not in line:
            assert line.strip() not in text


def test_secrets_that_contain_each_other_are_masked_whole() -> None:
    assert masked("user:longer-password@host", ["password", "longer-password"]) == "user:***@host"
    assert masked("a 1 b", ["1"]) == "a 1 b"
    assert secrets_of({SECRETS_VARIABLE: "A,B", "A": "x", "C": "y"}) == ("x",)
    assert secrets_of({"A": "x"}) == ()


def test_secrets_are_looked_for_in_the_home_and_in_what_is_mounted(tmp_path: Path) -> None:
    credentials, mounted = tmp_path / "credentials", tmp_path / "run"
    (mounted / "models").mkdir(parents=True)
    credentials.mkdir()
    files = {
        credentials / "model.A": "of systemd\n",
        credentials / "token": "the server's own",
        mounted / "model.A": "of Docker",
        mounted / "model.B": "of Docker",
        mounted / "tls-key": "the server's own",
        mounted / "models" / "C": "of Kubernetes",
    }
    for path, text in files.items():
        path.write_text(text)
    secrets = SecretFiles(tmp_path / "home", {"CREDENTIALS_DIRECTORY": str(credentials)}, mounted)
    assert [secrets.value(name) for name in "ABC"] == ["of systemd", "of Docker", "of Kubernetes"]
    (tmp_path / "home").mkdir()
    secrets.set("A", "of the home\n")
    assert secrets.value("A") == "of the home"
    assert list(secrets.names()) == ["A", "C", "B"]
    for own in ("token", "tls-key"):
        with pytest.raises(NotFound, match="run clipper secret set"):
            secrets.value(own)
    assert secrets.values(["A", "X=C"]) == {"A": "of the home", "X": "of Kubernetes"}
    secrets.delete("A")
    assert secrets.value("A") == "of systemd"
    with pytest.raises(NotFound):
        secrets.delete("A")


@pytest.mark.parametrize("value", ["", "\n", "abc", "a\0bcd", "x" * (variables.MAX_VALUE_BYTES + 1)])
def test_values_that_are_no_secrets(tmp_path: Path, value: str) -> None:
    secrets = SecretFiles(tmp_path, {}, tmp_path / "run")
    with pytest.raises(InvalidArgument):
        secrets.set("A", value)
    (tmp_path / "secrets").mkdir(exist_ok=True)
    (tmp_path / "secrets" / "A").write_text(value)
    with pytest.raises(InvalidArgument) as raised:
        secrets.value("A")
    assert len(str(raised.value)) < 200
    (tmp_path / "secrets" / "A").write_bytes(b"\xff\xfe12345")
    with pytest.raises(InvalidArgument, match="not text in UTF-8"):
        secrets.value("A")


def test_a_folder_or_a_pipe_in_a_secrets_place_is_no_secret(tmp_path: Path) -> None:
    secrets = SecretFiles(tmp_path, {}, tmp_path / "run")
    (tmp_path / "secrets" / "A").mkdir(parents=True)
    os.mkfifo(tmp_path / "secrets" / "B")
    assert secrets.names() == {}
    for name in "AB":
        with pytest.raises(NotFound):
            secrets.value(name)
