"""Every block of code on every page: it is run, or checked by what reads it, or stands below with the reason why not.

- Commands are parsed by the commands themselves, bodies of curl as JSON, targets of make by the Makefile.
- JSON, YAML and INI are parsed; a clipper.yaml is read as ``clipper apply`` reads it.
- Python is compiled, what it imports of Clipper is there, and it is run by a test that RUN names.
- A page's commands are run by a test that COMMANDS_RUN names, or COMMANDS_PARSED says why they are not.
"""

import ast
import configparser
import importlib
import itertools
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.main import get_command

from clipper.cli.main import cli
from clipper.cli.manifest.keys import SECTIONS
from clipper.cli.manifest.manifest import read_manifest
from tests.docs.pages import FOLLOWED, ROOT, Block, blocks, commands
from tests.docs.recipes import SAVES

PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "sdk").glob("*/README.md")),
    ROOT / "benchmarks" / "README.md",
    ROOT / "benchmarks" / "peers" / "README.md",
    ROOT / "proto" / "container-protocol.md",
    ROOT / "CONTRIBUTING.md",
]
BLOCKS = [block for page in PAGES for block in blocks(page)]

# That of the click which typer brings.
UsageError = typer.BadParameter.__mro__[1]

# The test that runs each page's Python, or holds it against a file that is run.
RUN = {
    "README.md": "tests/docs/test_readme.py",
    "docs/tutorial.md": "tests/docs/test_tutorial.py",
    "docs/click-log.md": "tests/docs/test_tutorial.py",
    "docs/python-models.md": "tests/docs/test_tutorial.py",
    "docs/keys-and-tls.md": "tests/docs/test_tutorial.py",
    "docs/troubleshooting.md": "tests/docs/test_tutorial.py",
    "docs/own-policies.md": "tests/docs/test_policies_page.py",
    **{f"docs/{page}.md": "tests/docs/recipes.py" for page in SAVES},
    "docs/python.md": "tests/docs/test_python_page.py",
    "docs/inputs.md": "tests/docs/test_inputs_page.py",
    "docs/moving.md": "tests/docs/test_moving_page.py",
    "docs/open-inference.md": "tests/docs/slow_pages.py",
    "docs/environments.md": "tests/docs/slow_pages.py",
    "docs/logs-and-traces.md": "tests/docs/test_logs_and_traces_page.py",
    "docs/decision-log.md": "tests/supervisor/test_decisions.py",
    "docs/pipelines.md": "tests/docs/test_pipelines_page.py",
}
# The test that runs each page's commands; those that it leaves out have their reason there.
COMMANDS_RUN = {
    "README.md": "tests/docs/test_readme.py",
    "docs/tutorial.md": "tests/docs/test_tutorial.py",
    "docs/click-log.md": "tests/docs/test_tutorial.py",
    "docs/python-models.md": "tests/docs/test_tutorial.py",
    "docs/keys-and-tls.md": "tests/docs/test_tutorial.py",
    "docs/troubleshooting.md": "tests/docs/test_tutorial.py",
    **{f"docs/{page}.md": "tests/docs/test_followed_pages.py" for page in FOLLOWED},
    "docs/pipelines.md": "tests/docs/test_pipelines_page.py",
    **{f"docs/{page}.md": "tests/docs/recipes.py" for page in SAVES},
    "docs/environments.md": "tests/docs/slow_pages.py",
    "docs/kubernetes.md": "tests/deploy/test_kubernetes_page.py",
}
# Pages whose commands are only parsed, and why.
COMMANDS_PARSED = {
    "docs/budgets.md": "they ask models of the reader's; tests/supervisor/test_budgets.py asks its own",
    "docs/cluster.md": "they make a cluster of several machines; tests/supervisor/managers/ray run one of a machine",
    "docs/high-availability.md": "the same; tests/supervisor/managers/ray run two supervisors",
    "docs/deploying.md": "they change the system; tests/deploy run the image and the files",
    "docs/docker.md": "they need a dockerd of the system's; tests/supervisor/test_docker.py runs one",
    "docs/frameworks.md": "they deploy models of the reader's",
    "docs/gpus.md": "they need GPUs; tests/supervisor/managers assign some that are not there",
    "docs/languages.md": "they build into the checkout; tests/sdk build and deploy elsewhere",
    "docs/many-models.md": "they deploy models of the reader's; tests/supervisor/test_sleeping.py has some sleep",
    "docs/models-by-address.md": "they fetch from stores; tests/client/packaging/real_stores.py does so from real ones",
    "docs/moving.md": "they deploy models of the reader's",
    "docs/operations.md": "they compile; make compiled does",
    "docs/inputs.md": "they ask applications and files of the reader's; tests/docs/test_inputs_page.py has some",
    "docs/outputs.md": "they deploy models of the reader's",
    "docs/paper.md": "they take hours",
    "docs/scoring.md": "they score files of the reader's; tests/supervisor/test_score.py has some",
    "docs/secrets.md": "they deploy models of the reader's; tests/supervisor/test_secrets.py has some",
    "docs/soak.md": "they take an hour",
    "docs/upgrades.md": "they upgrade the installation; tests/supervisor/test_upgrades.py does it without",
    "sdk/cpp/README.md": "they build into the checkout; tests/sdk build elsewhere",
    "sdk/java/README.md": "they build into the checkout; tests/sdk build elsewhere",
    "benchmarks/README.md": "they measure",
    "benchmarks/peers/README.md": "they measure",
}
# Languages that nothing here reads, and why.
NOT_CHECKED = {
    "cpp": "tests/docs/test_languages_page.py holds it against an example that is built and run",
    "java": "the same",
    "nginx": "nginx is not among the tools of the tests",
    "text": "an output; a test that follows its page compares it",
}
# Programs of others that pages call, whose options are theirs.
OTHERS = set(
    ".venv/bin/python autoload build/vectors cat cd cmake compinit cp curl docker echo export g++ grep "  # noqa: SIM905
    "grpcurl helm jar javac jq kill kubectl make mkdir openssl perf perf_analyzer pip promtool python "
    "python3 ray rm rsync sdk/java/build.sh sh "
    "source sudo systemctl useradd".split()
)
# Where a page leaves out what is long.
_LEFT_OUT = re.compile(r"…(?=\s*[\],}])")


def of(*languages: str) -> Any:
    found = [block for block in BLOCKS if block.language in languages]
    return pytest.mark.parametrize("block", found, ids=[block.place for block in found])


def parsed(words: list[str]) -> None:
    """Parse a command as the command itself does, without doing it.

    Raises:
        UsageError: it has no such option, argument or value.
    """
    command: Any = get_command(cli)
    context = None
    while True:
        context = command.make_context(command.name, words, parent=context)
        if not hasattr(command, "commands"):
            return
        _, found, words = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None
        command = found


def simple_commands(command: str) -> list[list[str]]:
    """The words of each program that a command line starts."""
    tokens = shlex.shlex(command.replace("\\\n", " ").replace("\n", " "), posix=True, punctuation_chars="|&;<>()")
    tokens.whitespace_split = True
    found: list[list[str]] = [[]]
    for token in tokens:
        if set(token) <= set("|&;()<>"):
            found.append([])
        elif found[-1] or not re.match(r"[A-Z_]+=", token):
            # A program by its path is the program.
            found[-1].append(token if found[-1] or token[0] != "/" else Path(token).name)
    # A list after > is a file's name, and commands in $( … ) have been found as words of their own.
    return [words for words in found if words and words != ["$"]]


def check_curl(words: list[str]) -> None:
    for flag, body in itertools.pairwise(words):
        if flag in ("-d", "--data") and not body.startswith("@"):
            json.loads(_LEFT_OUT.sub("0", body))
    (url,) = [word for word in words[1:] if word.startswith(("localhost", "http"))]
    assert re.match(r"(https?://)?[\w.-]+(:\d+)?/", url + "/"), url


def check_command(command: str) -> None:
    written_to = re.sub(r"[0-9]?>+ *[\w./~-]+", "", command)
    for words in simple_commands(written_to):
        if words == ["clipper"]:
            continue  # it writes its own completion, by its environment
        if words[0] == "clipper":
            if "--version" not in words and "--help" not in words:
                parsed(words[1:])
            if words[1] == "predict" and not re.match(r"@|[\w.]+=", words[3]):  # a file, or fields of a record
                json.loads(_LEFT_OUT.sub("0", words[3]))
        elif words[0] == "curl":
            check_curl(words)
        elif words[0] == "make":
            makefile = (ROOT / "Makefile").read_text()
            assert [word for word in words[1:] if "=" not in word and f"\n{word}:" not in makefile] == []
        else:
            assert words[0] in OTHERS, f"{words[0]} of {command!r} is not among OTHERS"
        for extras in re.findall(r"(?:clipper-serving|\.)\[([\w,]+)\]", " ".join(words)):
            known = re.search(
                r"\[project.optional-dependencies\]\n(.*?)\n\[", (ROOT / "pyproject.toml").read_text(), re.S
            )
            assert known is not None
            assert [extra for extra in extras.split(",") if not re.search(rf"(?m)^{extra} = ", known[1])] == []


@of("sh")
def test_commands_are_as_the_programs_take_them(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for command in commands(block.text):
        check_command(command)


def test_a_wrong_command_is_found() -> None:
    for wrong in (
        "clipper deploy digits svm.joblib --replica 2",
        "clipper nope",
        "clipper app create",
        "clipper app create a --slo-ms many | cat",
        "clipper predict a '[1'",
        "make nothing",
        "curl localhost:1337/a/predict -d '{\"input\": [1}'",
        'pip install "clipper-serving[nothing]"',
        "another program",
    ):
        with pytest.raises((UsageError, AssertionError, json.JSONDecodeError)):
            check_command(wrong)


# Not commands, or such as are done as soon as they are read.
NOT_PARSED = ("clipper COMMAND -h", "clipper decisions 1", "clipper --version", "clipper --install-completion")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_sentences_have_names_and_options_that_are_there(page: Path) -> None:
    """Sentences named an option of ``clipper logs`` that it did not have, since only blocks were parsed."""
    sentences = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for command in set(re.findall(r"`(clipper [^`\n]+)`", sentences)) - set(NOT_PARSED):
        for words in simple_commands(command.replace("…", "")):
            try:
                parsed(words[1:])
            except UsageError as error:  # arguments and values may be left out
                assert "No such" not in error.format_message(), f"{command}: {error.format_message()}"


@of("json")
def test_json_is_json(block: Block) -> None:
    for line in [block.text] if block.text.count("\n{") == 0 else block.text.splitlines():
        json.loads(_LEFT_OUT.sub("0", line))


@of("yaml", "ini")
def test_settings_are_what_reads_them_takes(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if block.language == "ini":
        configparser.ConfigParser(strict=False).read_string(block.text)
        return
    document = yaml.safe_load(block.text)
    assert document is not None
    if isinstance(document, dict) and document.keys() <= set(SECTIONS):
        environment = dict.fromkeys(re.findall(r"(?:\$\{|from_env: )(\w+)", block.text), "a" * 40)
        _, faults = read_manifest(block.text.encode(), tmp_path, environment)
        assert [fault for fault in faults if "cannot be read" not in str(fault)] == []


@of("python")
def test_python_is_run(block: Block) -> None:
    tree = compile(block.text, block.place, "exec", ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "clipper":
            module = importlib.import_module(str(node.module))
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
    assert block.page in RUN, f"nothing runs {block.place}"
    assert (ROOT / RUN[block.page]).exists()


def test_every_block_has_a_language_and_a_test_that_reads_it_or_a_reason() -> None:
    read = {"sh", "json", "yaml", "ini", "python", *NOT_CHECKED}
    assert [block.place for block in BLOCKS if block.language not in read] == []


def test_commands_are_run_or_say_why_not() -> None:
    have = {block.page for block in BLOCKS if block.language == "sh"}
    assert COMMANDS_RUN.keys() | COMMANDS_PARSED.keys() == have
    assert COMMANDS_RUN.keys().isdisjoint(COMMANDS_PARSED)
    assert [test for test in COMMANDS_RUN.values() if not (ROOT / test).exists()] == []
    assert RUN.keys() == {block.page for block in BLOCKS if block.language == "python"}
