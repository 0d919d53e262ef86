from pathlib import Path

import pytest

from clipper.supervisor.config import Config, parse_command_line


def test_defaults_and_options() -> None:
    assert parse_command_line(["--home", "h"]) == Config(Path("h"), "127.0.0.1", 1337, 1338, 1, 64 * 1024 * 1024)
    options = ["--home=h", "--host=::1", "--query-port=0", "--management-port=1", "--workers=3", "--cache-bytes=0"]
    assert parse_command_line(options) == Config(Path("h"), "::1", 0, 1, 3, 0)
    assert parse_command_line(["--home=h", "--max-body-bytes=65536"]).max_body_bytes == 65536


def test_the_stores_path_is_made_absolute_since_workers_run_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stores = ["sqlite:learned.db", "sqlite:/x/y", "sqlite:", "redis://h/0", "other"]
    parsed = [parse_command_line(["--home=h", f"--store={store}"]).store for store in stores]
    assert parsed == [f"sqlite:{tmp_path}/learned.db", "sqlite:/x/y", "sqlite:", "redis://h/0", "other"]


UNREACHABLE = "--home h --docker-transport tcp --docker-network none"


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "--home h --query-port 65536",
        "--home h --workers 0",
        "--home h --workers x",
        UNREACHABLE,
        "--home h --max-body-bytes 1",
    ],
)
def test_wrong_usage_exits_with_2(wrong: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        parse_command_line(wrong.split())
    assert exit_info.value.code == 2
    assert "usage" in capsys.readouterr().err
