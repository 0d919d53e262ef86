"""A wrong value of any option is refused in words of ours, before anything is started, packed or asked."""

import re
from collections.abc import Iterator
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

from clipper.cli.main import cli
from clipper.errors import ClipperError
from scripts.option_tables import commands

NUMBER = ("yes", "", "nan", "inf", "1e999", "0x10", "1_0", "1,5", "- 1", "9" * 400, "\x1b[31m")
LARGE = (*NUMBER, "-1", "1e300")
OR_NONE = ("yes", "", "nan", "-1")
SIZE = ("yes", "", "-1", "2 apples", "1e5", "1g2")
CHOICE = ("yes", "", "TEXT,JSON")
JSON = ("yes", "", "{", "nan", "[1e999]")
TIME = ("soon", "", "12x")
NAMED = ("eta", "", "=1")
# By option, and by the command before it where several have an option of that name.
WRONG: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("--slo-ms", "--prior-weight", "--inherit", "--feedback-ttl-s", "--log-decisions"), LARGE),
    **dict.fromkeys(("--cost-weight", "--max-batch", "--batch-delay-ms", "--start-timeout", "--cpus"), LARGE),
    **dict.fromkeys(("--query-port", "--management-port", "--workers", "--access-log", "--slow-query-ms"), LARGE),
    **dict.fromkeys(("--idle-after", "--workers-per-node", "--keep-previous", "--every"), LARGE),
    **dict.fromkeys(("--trace-share", "--drain-delay", "--limit", "--lines", "--connections", "--reward"), LARGE),
    **dict.fromkeys(("--max-contexts", "--feedback-queries", "--keep-versions", "--width"), (*NUMBER, "-1", "0")),
    **dict.fromkeys(("--rate", "--cores"), (*NUMBER, "-1", "0")),
    **dict.fromkeys(("--query-id", "--confidence", "--tolerance"), NUMBER),
    **dict.fromkeys(("--max-in-flight", "--max-per-second", "--half-life", "--ramp"), OR_NONE),
    **dict.fromkeys(("--max-cost-per-query", "--min-quality", "--max-replicas"), OR_NONE),
    **dict.fromkeys(("--max-loss-increase", "--confidence-threshold", "--waking-slo-ms"), OR_NONE),
    **dict.fromkeys(
        ("--memory", "--gpu-memory", "--cache-size", "--max-body-size", "--max-output-size", "--decision-log-size"),
        SIZE,
    ),
    **dict.fromkeys(("--wait", "--confidence-from", "--batching", "--manager", "--log-format", "--log-level"), CHOICE),
    **dict.fromkeys(("--docker-transport", "--framework", "--language", "--kind", "--arrivals", "--role"), CHOICE),
    **dict.fromkeys(("--start-method", "--ready-when", "--precision", "--log-inputs"), CHOICE),
    **dict.fromkeys(("--default", "--sample", "--label", "--input"), JSON),
    **dict.fromkeys(("predict --features", "observe --features"), JSON),
    **dict.fromkeys(("--policy-parameter", "--loss-parameter"), NAMED),
    **dict.fromkeys(("--since", "--until", "--duration", "--expires"), TIME),
    # Any other text names fields of a record.
    "--features": ("-1", "0", "1.5"),
    "--replicas": ("yes", "", "0", "3..1", "1..", "-1", "1.5"),
    "--grpc-port": ("yes", "", "-1", "65536", "OFF"),
    "--ray-ports": ("yes", "", "21000", "9-8"),
    "--otlp-endpoint": ("yes", "", "ftp://x", "http://"),
    "--allowed-origin": ("yes", "", "https://shop.example/"),
    "--allowed-host": ("a b", "", "shop.example:443"),
    "create --cost": ("forest", "", "forest=x", "forest=-1"),
    "link --cost": ("forest", "", "-1"),
    "--run-as": ("nobody-by-this-name", "no:such:user"),
    "serve --name": ("A b", "", "../x"),
    "--resources": ("yes", "", "ssd=", "ssd=-1", "ssd=nan"),
    "--env": ("yes", "", "1A=x", "HOME=x"),
    "--env-file": ("FOLDER/none.env", "FOLDER"),
    "--secret": ("a/b", "", "A=", "HOME"),
    "--registry": ("yes", "", "mongodb://h", "redis://h:port", "sqlite:FILE"),
    "--html": ("FOLDER", "FOLDER/none/page.html"),
    "export --output": ("FOLDER", "FOLDER/none/log.jsonl"),
    "--home": ("FILE",),
    "--tls-cert": ("FOLDER/none.pem", "FOLDER", "FILE"),
    "--tls-key": ("FOLDER/none.pem",),
    "--tls-client-ca": ("FOLDER/none.pem",),
    "--config": ("FOLDER/none.yaml", "FOLDER", "FILE"),
}
# Texts that mean something to the server or to people, and paths that whoever opens them checks.
FREE = frozenset(
    "--url --query-url --host --management-host --store --placement --python --gpus --input-type --output-type "  # noqa: SIM905
    "--output --description --data --label-field --redact "
    "--requirements --image --docker-base-image --docker-network --ray-address --ray-python --policy --loss --model "
    "--shadow --prefix --version --app --context --api-key --subject --who --to --replica --log --artifacts "
    "--inputs --name --json "
    "--install-completion --show-completion --file --unset --credentials --pipeline --step".split()
)
# Other options that a command needs, so that the tried value alone is wrong.
WITH = {
    "clipper load": ("--rate", "1"),
    "clipper plan": ("--rate", "1"),
    "clipper score": ("--output", "scored.csv"),
    "clipper observe": ("--label", "1", "--query-id", "1"),
    "clipper observe --label": ("--query-id", "1"),
    "clipper observe --reward": ("--query-id", "1"),
    "clipper observe --query-id": ("--label", "1"),
    "clipper observe --input": ("--label", "1"),
    "clipper app update --policy-parameter": ("--policy", "exp3"),
    "clipper app update --loss-parameter": ("--loss", "zero_one"),
    "clipper app whatif --policy-parameter": ("--policy", "exp3"),
    "clipper log export": ("--output", "log.jsonl"),
}
ROOT: Any = get_command(cli)
COMMANDS = dict(commands(ROOT))
# That of the click which typer brings.
UsageError: Any = typer.BadParameter.__mro__[1]
# Words of libraries, or of a crash.
RAW = re.compile(
    r"pydantic|Input should|unable to|valid (integer|number|string)|Traceback|must be|ValueError|is not one of"
)


def options() -> Iterator[tuple[str, Any, str]]:
    """Every option that takes a value, with the command that has it."""
    for name, command in COMMANDS.items():
        for parameter in command.params:
            if parameter.param_type_name == "option" and not parameter.is_flag:
                yield name, command, parameter.opts[0]


def wrong_values(command: str, option: str) -> tuple[str, ...] | None:
    return WRONG.get(f"{command.split()[-1]} {option}", WRONG.get(option))


CASES = [(name, option) for name, _, option in options() if wrong_values(name, option)]


def test_every_option_is_tried_or_takes_any_text() -> None:
    unknown = [(name, option) for name, _, option in options() if not wrong_values(name, option) and option not in FREE]
    assert unknown == []
    known = {option for _, _, option in options()}
    assert {each.split()[-1] for each in WRONG} | FREE <= known | {"--install-completion", "--show-completion"}


def refusal(words: list[str]) -> str:
    """The error of a command that refuses its arguments. Nothing may have been started."""
    with redirect_stderr(StringIO()) as told:
        try:
            status = ROOT.main(words, "clipper", standalone_mode=False)
        except UsageError as error:
            return str(error.format_message())
        except ClipperError as error:
            return str(error)
    # A command with --json writes its errors itself.
    assert status == 1, f"{words} did not fail"
    return told.getvalue().removeprefix("error: ").strip()


# Beside the value that came, a message has one of these.
SAYS = ("expected", "needs", "there is no", "cannot", "use 1 to 63")


@pytest.mark.parametrize(("name", "option"), CASES, ids=[f"{name} {option}" for name, option in CASES])
def test_a_wrong_value_is_refused_in_plain_words(name: str, option: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("nothing\n")
    (tmp_path / "cert.pem").write_text("nothing\n")
    command = COMMANDS[name]
    needed = ["x" for one in command.params if one.param_type_name == "argument" and one.required]
    besides = WITH.get(f"{name} {option}", WITH.get(name, ()))
    if option in besides:
        besides = ()
    home = [] if option == "--home" else ["--home", str(tmp_path / "home")]
    tls = {"--tls-key": "--tls-cert", "--tls-cert": "--tls-key"}.get(option)
    for value in wrong_values(name, option) or ():
        given = value.replace("FOLDER", str(tmp_path)).replace("FILE", str(tmp_path / "file"))
        pair = [tls, str(tmp_path / "cert.pem")] if tls else []
        words = [*name.split()[1:], *needed, *besides, *home, *pair, f"{option}={given}"]
        told = refusal(words)
        assert not RAW.search(told), f"{words}: {told}"
        assert any(text in told for text in SAYS), f"{words}: {told}"


VARIABLES = [
    (name, parameter.envvar, option)
    for name, command, option in options()
    for parameter in command.params
    if option in parameter.opts and parameter.envvar and wrong_values(name, option)
]


@pytest.mark.parametrize(("name", "variable", "option"), VARIABLES)
def test_a_wrong_value_in_the_environment_is_refused_alike(
    name: str, variable: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("nothing\n")
    monkeypatch.setenv("CLIPPER_HOME", str(tmp_path / "home"))
    command = COMMANDS[name]
    needed = ["x" for one in command.params if one.param_type_name == "argument" and one.required]
    for value in filter(None, wrong_values(name, option) or ()):
        monkeypatch.setenv(variable, value.replace("FILE", str(tmp_path / "file")))
        told = refusal([*name.split()[1:], *needed, *WITH.get(name, ())])
        assert not RAW.search(told) and "expected" in told and variable in told, f"{name} {variable}={value}: {told}"
