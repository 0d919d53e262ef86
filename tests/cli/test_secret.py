"""``clipper secret`` on a home without a server, and variables that a model's commands show by name."""

import stat
from pathlib import Path

from tests.cli.commands import commands, succeed


def test_a_secret_is_read_from_standard_input_or_a_file_and_never_printed(tmp_path: Path) -> None:
    home = tmp_path / "home"
    run = commands(home, tmp_path)
    (tmp_path / "value").write_text("of-a-file\n")
    printed = succeed(run("secret", "set", "FROM_FILE", "--file", "value"))
    assert "the secret FROM_FILE is in" in printed
    assert "redeploy" in printed
    path = home / "secrets" / "FROM_FILE"
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("of-a-file\n", 0o600)
    listed = succeed(run("secret", "list"))
    assert "FROM_FILE" in listed and "of-a-file" not in listed
    short = run("secret", "set", "SHORT", "--file", "/dev/null")
    assert (short.returncode, "expected at least 4 characters" in short.stderr) == (1, True)
    missing = run("secret", "set", "A", "--file", "nowhere")
    assert (missing.returncode, "nowhere cannot be read" in missing.stderr) == (1, True)
    as_argument = run("secret", "set", "A", "hunter2")
    assert as_argument.returncode == 2 and not (home / "secrets" / "A").exists()
    succeed(run("secret", "delete", "FROM_FILE"))
    assert "no secrets" in succeed(run("secret", "list"))
