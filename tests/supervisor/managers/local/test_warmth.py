"""Which containers can be forked from one process, and what that imports."""

import pytest

from clipper.settings.version import VersionSpec
from clipper.supervisor.managers.local.warmth import Warmth, warmth_of

VARIABLES = {"OMP_NUM_THREADS": "1", "TMPDIR": "/scratch/a", "CUDA_VISIBLE_DEVICES": "0"}


def warmth(**fields: object) -> Warmth | None:
    given = {"artifact": "a", "loader": "file", "target": "m.pkl"} | fields
    return warmth_of(VersionSpec(**given), "/python", VARIABLES, ["OMP_NUM_THREADS", "OTHER"])  # type: ignore[arg-type]


def test_models_of_one_environment_share_what_their_files_need() -> None:
    first = warmth(needs=("joblib", "scikit-learn==1.6.1", "numpy<2"), framework="joblib")
    assert first is not None
    assert first.python == "/python"
    assert first.variables == (("OMP_NUM_THREADS", "1"),)
    assert {"joblib", "sklearn.linear_model", "sklearn.ensemble"} <= set(first.modules)
    assert warmth(needs=("scikit-learn==1.6.1", "joblib"), target="other.joblib", artifact="b") == first
    assert warmth(needs=("Scikit-Learn",)) != first


@pytest.mark.parametrize(
    ("fields", "module"),
    [
        ({"framework": "onnx", "needs": ("onnxruntime",)}, "clipper.model.frameworks.onnx"),
        ({"framework": "torch_state", "loader": "import"}, "clipper.model.frameworks.torch_state"),
        ({"needs": ("xgboost-cpu==3.1.0",)}, "xgboost"),
    ],
)
def test_what_a_frameworks_models_need_is_imported(fields: dict[str, object], module: str) -> None:
    found = warmth(**fields)
    assert found is not None and module in found.modules


@pytest.mark.parametrize(
    "fields", [{}, {"loader": "import"}, {"framework": "tensorflow", "needs": ("tensorflow-cpu",)}]
)
def test_without_a_known_library_the_runtime_alone_is_shared(fields: dict[str, object]) -> None:
    found = warmth(**fields)
    assert found is not None and found.modules == ()


def test_nothing_that_the_model_brings_is_imported() -> None:
    found = warmth(loader="import", target="my_model:predict", needs=("my_model", "../evil", "os;import", "-r x", ""))
    assert found is not None and found.modules == ()


@pytest.mark.parametrize("loader", ["binary", "image"])
def test_a_program_is_not_forked(loader: str) -> None:
    assert warmth(loader=loader, needs=("scikit-learn",)) is None
