from pathlib import Path

import pytest

from clipper.base.tls.material import TlsPaths
from clipper.supervisor.config import Config, parse_command_line


def test_defaults_and_options() -> None:
    assert parse_command_line(["--home", "h"]) == Config(
        Path("h"), host="127.0.0.1", management_host="127.0.0.1", query_port=1337, management_port=1338, workers=1
    )
    options = ["--home=h", "--host=::1", "--query-port=0", "--management-port=1", "--workers=3", "--cache-bytes=0"]
    assert parse_command_line(options) == Config(
        Path("h"), host="::1", query_port=0, management_port=1, workers=3, cache_bytes=0
    )
    exposed = "--home=h --management-host=:: --insecure --allowed-host=a --allowed-host=b --open-metrics"
    assert parse_command_line(exposed.split()) == Config(
        Path("h"), management_host="::", insecure=True, allowed_host=("a", "b"), open_metrics=True
    )

    origins = ["--allowed-origin=*", "--allowed-origin=http://localhost:5173"]
    assert parse_command_line(["--home=h", *origins]).allowed_origin == ("*", "http://localhost:5173")

    kept = parse_command_line(["--home=h", "--max-contexts=7", "--keep-versions=3"])
    assert (kept.max_contexts, kept.keep_versions) == (7, 3)
    assert parse_command_line(["--home=h", "--max-body-bytes=65536"]).max_body_bytes == 65536


@pytest.mark.parametrize(
    ("options", "installed", "port"),
    [
        ("", True, 1339),
        ("", False, None),
        ("--query-port=0", True, 0),
        ("--grpc-port=0", True, 0),
        ("--grpc-port=21039", True, 21039),
        ("--grpc-port=off", True, None),
        ("--grpc-port=off", False, None),
    ],
)
def test_the_port_for_grpc(options: str, installed: bool, port: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clipper.supervisor.config.has_grpc", lambda: installed)
    assert parse_command_line(["--home=h", *options.split()]).wanted_grpc_port == port


def test_a_port_for_grpc_without_its_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("clipper.settings.server.has_grpc", lambda: False)
    with pytest.raises(SystemExit):
        parse_command_line(["--home=h", "--grpc-port=1339"])
    assert "pip install 'clipper-serving[grpc]'" in capsys.readouterr().err


def test_with_tls_other_machines_may_reach_management() -> None:
    tls = ["--home=h", "--tls-cert=c", "--tls-key=k"]
    config = parse_command_line([*tls, "--management-host=0.0.0.0"])
    assert (config.tls, config.tls_mode, config.insecure) == (TlsPaths(Path("c"), Path("k")), "server", False)
    assert parse_command_line([*tls, "--tls-client-ca=a"]).tls_mode == "mutual"
    assert parse_command_line(["--home=h"]).tls_mode == "off"


def test_the_stores_path_is_made_absolute_since_workers_run_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stores = ["sqlite:learned.db", "sqlite:/x/y", "sqlite:", "redis://h/0", "other"]
    parsed = [parse_command_line(["--home=h", f"--store={store}"]).store for store in stores]
    assert parsed == [f"sqlite:{tmp_path}/learned.db", "sqlite:/x/y", "sqlite:", "redis://h/0", "other"]


def test_a_store_whose_address_is_not_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLIPPER_STORE", "redis://:secret@h/0")
    assert parse_command_line(["--home=h"]).store == "redis://:secret@h/0"
    file = tmp_path / "store"
    file.write_text("redis://:other@h/0\n")
    assert parse_command_line(["--home=h", f"--store=file:{file}"]).store == "redis://:other@h/0"
    file.write_text(f"file:{file}")
    for missing in (file, tmp_path / "none"):
        with pytest.raises(SystemExit):
            parse_command_line(["--home=h", f"--store=file:{missing}"])
        assert f"argument --store: {missing} cannot be read" in capsys.readouterr().err


def test_servers_with_one_registry_share_learning_unless_told_not_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert parse_command_line(["--home=h"]).store_address is None
    monkeypatch.setenv("CLIPPER_REGISTRY", "redis://:secret@h/0")
    config = parse_command_line(["--home=h"])
    assert (config.registry, config.store, config.store_address) == ("redis://:secret@h/0", None, "redis://:secret@h/0")
    assert parse_command_line(["--home=h", "--store=redis://h/1"]).store_address == "redis://h/1"


UNREACHABLE = "--home h --docker-transport tcp --docker-network none"


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "--home h --query-port 65536",
        "--home h --workers 0",
        "--home h --keep-versions 0",
        "--home h --workers x",
        "--home h --management-host 0.0.0.0",
        "--home h --tls-cert c",
        "--home h --tls-key k",
        "--home h --tls-client-ca a",
        "--home h --allowed-host clipper.example:443",
        "--home h --allowed-host https://clipper.example",
        "--home h --allowed-host=",
        "--home h --allowed-origin shop.example",
        UNREACHABLE,
        "--home h --max-body-bytes 1",
        "--home h --ray-ports 80-90",
    ],
)
def test_wrong_usage_is_told_in_one_line_and_exits_with_2(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        parse_command_line(wrong.split())
    assert exit_info.value.code == 2
    told = capsys.readouterr().err
    assert told.startswith("clipper: ") and told.count("\n") == 1


def test_logs_and_traces() -> None:
    options = "--log-format=json --log-level=debug --access-log=0.5 --slow-query-ms=20 --trace-share=1"
    config = parse_command_line(["--home=h", *options.split(), "--otlp-endpoint=http://localhost:4318/v1/traces"])
    assert (config.log_format, config.log_level, config.access_log, config.slow_query_ms) == (
        "json",
        "debug",
        0.5,
        20.0,
    )
    assert (config.otlp_endpoint, config.trace_share) == ("http://localhost:4318", 1.0)


@pytest.mark.parametrize(
    "option",
    [
        "--access-log=1.1",
        "--access-log=nan",
        "--trace-share=-1",
        "--slow-query-ms=-1",
        "--log-format=xml",
        "--otlp-endpoint=a",
    ],
)
def test_what_logs_and_traces_do_not_take(option: str) -> None:
    with pytest.raises(SystemExit):
        parse_command_line(["--home=h", option])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--manager=ray --ray-python=/p --run-as=nobody", "--manager: on Ray, models run as the user of each node"),
        ("--manager=kubernetes", "invalid choice: 'kubernetes'"),
    ],
)
def test_a_manager_that_cannot_be(options: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_command_line(["--home=h", *options.split()])
    assert says in capsys.readouterr().err


def test_the_manager_of_deployments_that_name_none() -> None:
    assert parse_command_line(["--home=h"]).manager == "local"
    assert parse_command_line(["--home=h", "--manager=ray", "--ray-python=/p"]).manager == "ray"
    assert parse_command_line(["--home=h", "--manager=docker"]).manager == "docker"


def test_spans_without_their_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("clipper.settings.server.has_otel", lambda: False)
    with pytest.raises(SystemExit):
        parse_command_line(["--home=h", "--otlp-endpoint=http://localhost:4318"])
    assert "pip install 'clipper-serving[otel]'" in capsys.readouterr().err


ON_NODES = "--manager=ray --ray-python=/p --workers-per-node=2 "


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("--workers-per-node=1", "--workers-per-node 1: nodes are those of a Ray cluster: expected --manager ray"),
        (ON_NODES, "share what policies learn in Redis: give --store redis://HOST:PORT/DB"),
        (f"{ON_NODES} --store=sqlite:s", "share what policies learn in Redis"),
        (f"{ON_NODES} --store=unix:///s", "share what policies learn in Redis"),  # other machines do not reach it
        (f"{ON_NODES} --store=redis://r --workers=2", "no worker runs on this machine then: leave out --workers"),
        (f"{ON_NODES} --store=redis://r --host=0.0.0.0", "at its node's address in Ray: leave out --host"),
        (f"{ON_NODES} --store=redis://r --query-port=0", "at one port: give --query-port and --grpc-port other than 0"),
        (f"{ON_NODES} --store=redis://r --grpc-port=0", "at one port"),
        ("--workers-per-node=65", "it is 65: expected a number from 0 to 64"),
    ],
)
def test_workers_that_cannot_be_on_nodes(options: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse_command_line(["--home=h", *options.split()])
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("where", ["--store=redis://r", "--store=rediss://r", "--registry=redis://r"])
def test_workers_on_nodes(where: str) -> None:
    config = parse_command_line(["--home=h", *ON_NODES.split(), where])
    assert (config.workers_per_node, config.workers, config.query_port) == (2, 1, 1337)
    assert parse_command_line(["--home=h"]).workers_per_node == 0
