"""The command line of a container."""

from pathlib import Path

from msgspec.structs import replace

from clipper.settings.version import VersionSpec
from clipper.supervisor.managers.launcher import ContainerNote, container_argv

NOTE = ContainerNote("ads", "2", 1, 7, "unix:/run/c7/s", VersionSpec("a1", "import", "m:f"))


def test_clippers_runtime_is_told_of_logs_in_json() -> None:
    text = container_argv(NOTE, Path("/a"), "python3")
    assert not {"--log-format", "--replica"} & set(text)
    json = container_argv(replace(NOTE, log_format="json"), Path("/a"), "python3")
    assert json == [*text, "--log-format", "json", "--replica", "ads:2#1.g7"]


def test_a_program_gets_the_options_of_the_protocol_alone() -> None:
    note = replace(NOTE, spec=replace(NOTE.spec, loader="binary", target="sum"), log_format="json")
    expected = ["/a/sum", "--listen", "unix:/run/c7/s", "--model", "ads", "--version", "2"]
    assert container_argv(note, Path("/a"), "python3") == expected


def test_the_runtime_is_told_the_bound_of_an_output() -> None:
    argv = container_argv(replace(NOTE, max_output_bytes=70_000), Path("/a"), "python3")
    assert argv[argv.index("--max-output-bytes") + 1] == "70000"
