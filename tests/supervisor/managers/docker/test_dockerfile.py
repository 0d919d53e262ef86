"""Dockerfiles, and when two images are the same."""

from msgspec.structs import replace

from clipper.settings.version import VersionSpec
from clipper.supervisor.managers.docker.options import dockerfile

MODEL = VersionSpec("a1", "file", "model.joblib", manager="docker")


def lines(spec: VersionSpec) -> list[str]:
    return dockerfile(spec, "base:1", "runtime", "/home").text.splitlines()


def test_a_model_goes_on_the_base_image_last_of_all() -> None:
    first, variable, numpy, *rest = lines(MODEL)
    assert variable == "ENV PIP_BREAK_SYSTEM_PACKAGES=1"
    assert first == "FROM base:1"
    assert numpy.startswith("RUN python3 -c 'import numpy'") and numpy.endswith("numpy")
    assert rest == [
        "COPY clipper /clipper/python/clipper",
        "ENV PYTHONPATH=/clipper/python PYTHONUNBUFFERED=1",
        "COPY artifact /clipper/artifact",
    ]


def test_a_program_needs_no_python() -> None:
    assert lines(replace(MODEL, loader="binary", target="sum")) == ["FROM base:1", "COPY artifact /clipper/artifact"]


def test_what_the_user_lists_goes_before_what_the_file_says() -> None:
    pip = '["python3", "-m", "pip", "install", "--no-cache-dir", "--disable-pip-version-check", '
    needs = replace(MODEL, needs=("python==3.12", "scikit-learn==1.5.2", "joblib"))
    assert f'RUN {pip}"scikit-learn==1.5.2", "joblib"]' in lines(needs)
    listed = lines(replace(needs, requirements="my reqs.txt"))
    assert listed[3:5] == [
        'COPY ["artifact/my reqs.txt", "/clipper/requirements.txt"]',
        f'RUN {pip}"-r", "/clipper/requirements.txt"]',
    ]
    assert not any("scikit-learn" in line for line in listed)


def test_a_tag_is_of_all_that_is_in_the_image_and_of_nothing_else() -> None:
    tag = dockerfile(MODEL, "base:1", "runtime", "/home").tag
    assert (
        tag == dockerfile(replace(MODEL, memory_bytes=1 << 30, target="other.joblib"), "base:1", "runtime", "/home").tag
    )
    others = [
        dockerfile(replace(MODEL, artifact="a2"), "base:1", "runtime", "/home"),
        dockerfile(replace(MODEL, requirements="reqs.txt"), "base:1", "runtime", "/home"),
        dockerfile(MODEL, "base:2", "runtime", "/home"),
        dockerfile(MODEL, "base:1", "newer", "/home"),
        dockerfile(MODEL, "base:1", "runtime", "/other"),
    ]
    assert len({tag, *(other.tag for other in others)}) == 6
