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


def test_the_runtime_is_told_the_type_that_its_version_has_had() -> None:
    """A newer Clipper may find out more of a model, but its applications send what it took."""
    learned = container_argv(replace(NOTE, known_type="float64[4]"), Path("/a"), "python3")
    assert learned[learned.index("--input-type") + 1] == "float64[4]"
    declared = replace(NOTE, known_type="float64[4]", spec=replace(NOTE.spec, input_type="string"))
    argv = container_argv(declared, Path("/a"), "python3")
    assert argv[argv.index("--input-type") + 1] == "string"
    assert "--input-type" not in container_argv(replace(NOTE, known_type="a" * 100_001), Path("/a"), "python3")


def test_the_runtime_is_told_of_a_sample_that_is_a_record() -> None:
    argv = container_argv(replace(NOTE, spec=replace(NOTE.spec, sample='{"age": 31}')), Path("/a"), "python3")
    assert argv[argv.index("--sample-type") + 1] == "age: float64"
    plain = container_argv(replace(NOTE, spec=replace(NOTE.spec, sample="[1, 2]")), Path("/a"), "python3")
    assert "--sample-type" not in plain


def test_the_runtime_is_told_of_gpus_and_of_the_precision() -> None:
    argv = container_argv(NOTE, Path("/a"), "python3")
    assert not {"--gpu", "--precision"} & set(argv)
    on_gpu = container_argv(replace(NOTE, spec=replace(NOTE.spec, gpus="0.5", precision="bf16")), Path("/a"), "python3")
    assert on_gpu == [*argv[:-2], "--precision", "bf16", *argv[-2:], "--gpu"]


def test_the_runtime_is_told_the_bound_of_an_output() -> None:
    argv = container_argv(replace(NOTE, max_output_bytes=70_000), Path("/a"), "python3")
    assert argv[argv.index("--max-output-bytes") + 1] == "70000"
