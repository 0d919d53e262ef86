"""The output of commands with --json, of a real server, against the types that are promised."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.cli.commands import MODEL
from tests.cli.in_process import Run
from tests.stable.outputs import JSON_OUTPUTS
from tests.supervisor.live_server import Server, end_all_of

# Each command of the table, in an order in which each has something to print.
LINES = """
deploy m model:Sum
model list
model show m
model scale m 2
model redeploy m --max-batch 8
model rollback m
model delete m:2
replica list
replica show REPLICA
app create app --model m --slo-ms 20000 --policy exp3 --default 0
app list
app show app
app update app --half-life 500
predict app [1,2,3,4]
observe app --input [1,2,3,4] --label 10 --context me
app policy app
app report app
app contexts list app
app contexts delete app me
app unlink app m
app link app m
load app --rate 20 --duration 0.2s
status
status --history
events
logs m
dashboard
key create web
key list
key revoke web
token create ci
token list
token revoke ci
secret set word --file word.txt
secret list
secret delete word
apply clipper.yaml --dry-run
export
backup kept.tar
app delete app --yes
""".strip().splitlines()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "home").start()
    yield server
    server.stop()
    end_all_of(server.home)


@pytest.mark.long
def test_commands_print_values_of_their_types(
    bare: Run, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    (tmp_path / "word.txt").write_text("Schwertfisch")
    (tmp_path / "clipper.yaml").write_text("applications:\n  new: {input_type: string, slo_ms: 20}\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLIPPER_HOME", str(server.home))
    left, replica = set(JSON_OUTPUTS), ""
    for line in LINES:
        command = max((name for name in JSON_OUTPUTS if line.startswith(name)), key=len)
        words = [*shlex.split(line.replace("REPLICA", replica)), "--json"]
        told = bare(*words, "-") if command == "load" else bare(*words)
        assert told.status == 0, (line, told)
        printed = msgspec.json.decode(told.out, type=JSON_OUTPUTS[command])
        if command == "replica list":
            replica = printed[0].id
        left.discard(command)
    assert left == set()


def test_commands_without_a_server_say_errors_as_json_too(bare: Run, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    for line in ("secret delete none", "backup a.tar", "start --tls-cert none.pem --tls-key none.pem"):
        told = bare(*line.split(), "--home", str(tmp_path / "home"), "--json")
        assert told.status == 1 and msgspec.json.decode(told.err).keys() == {"error", "message"}
