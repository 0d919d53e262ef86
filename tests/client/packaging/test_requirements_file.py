"""Requirements mean the same on the server as beside the file, or are refused."""

from pathlib import Path

import pytest

from clipper.client.packaging import requirements_file
from clipper.client.packaging.models import package
from clipper.client.packaging.requirements_file import requirements_member
from clipper.errors import InvalidArgument, TooLarge


def text_of(folder: Path, text: str) -> str:
    (folder / "reqs.txt").write_text(text)
    member = requirements_member(folder / "reqs.txt")
    assert isinstance(member.source, bytes)
    return member.source.decode()


@pytest.mark.parametrize(
    "line",
    [
        "scikit-learn==1.5.2",
        "numpy>=1.26,<3; python_version >= '3.10'",
        "uvicorn[standard]",
        "small @ https://example.org/small-1.0.zip#sha256=abc",
        "small @ file:///srv/small-1.0-py3-none-any.whl",
        "/srv/small-1.0-py3-none-any.whl",
        "https://example.org/a/small-1.0.tar.gz",
        "--find-links /srv/wheels",
        "--index-url https://example.org/simple",
        "--pre",
        "small==1.0 --hash=sha256:abc",
    ],
)
def test_what_means_the_same_everywhere_is_taken_as_it_is(tmp_path: Path, line: str) -> None:
    assert text_of(tmp_path, f"# why\n\n{line}  # because\n") == f"{line}\n"


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("-e .", "deploy module:attribute from it"),
        ("--editable=./mine", "deploy module:attribute from it"),
        ("-c constraints.txt", "write the versions here"),
        ("./small-1.0-py3-none-any.whl", "a path relative to this file"),
        ("small-1.0-py3-none-any.whl", "a path relative to this file"),
        ("wheels/small", "a path relative to this file"),
        ("small @ file:wheels/small.zip", "a path relative to this file"),
        ("--find-links wheels", "a path relative to this file"),
        ("-fwheels", "a path relative to this file"),
        ("-r none.txt", "No such file"),
        ('-r "none.txt', "cannot be read: No closing quotation"),
    ],
)
def test_what_the_server_does_not_have_is_refused(tmp_path: Path, line: str, cause: str) -> None:
    with pytest.raises(InvalidArgument, match=cause):
        text_of(tmp_path, line)


def test_included_files_stand_in_their_place(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "base.txt").write_text("two\n-r last.txt\n")
    (tmp_path / "more" / "last.txt").write_text("three \\\n  ==3\n")
    assert text_of(tmp_path, "one\n--requirement=more/base.txt\nfour\n") == "one\ntwo\nthree    ==3\nfour\n"


def test_what_lines_include_is_beside_the_named_folder(tmp_path: Path) -> None:
    (tmp_path / "more.txt").write_text("small==1.0\n")
    assert requirements_member(["-r more.txt", "numpy"], tmp_path).source == b"small==1.0\nnumpy\n"


def test_files_that_include_each_other_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="do files include each other"):
        text_of(tmp_path, "-r reqs.txt\n")


def test_what_is_no_text_or_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.bin").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(InvalidArgument, match="a requirement in each line"):
        requirements_member(tmp_path / "model.bin")
    monkeypatch.setattr(requirements_file, "MAX_REQUIREMENTS_BYTES", 10)
    with pytest.raises(TooLarge, match="expected at most 10"):
        requirements_member(["scikit-learn==1.5.2"])


def test_an_artifact_says_where_its_requirements_are() -> None:
    with package(len, requirements=["small==1.0"]) as artifact:
        assert artifact.requirements == "requirements.txt"
    with package(len) as artifact:
        assert artifact.requirements is None


def test_a_program_has_none() -> None:
    with pytest.raises(InvalidArgument, match="a program has its own"):
        package("/bin/true", language="binary", requirements=["small"])
