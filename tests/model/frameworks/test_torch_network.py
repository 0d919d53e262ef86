"""EfficientNet in the three forms that PyTorch saves, on photographs, against the network itself."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from scripts.real_models import exported
from tests.model.runtime.framework_desk import Desk, Model, Refused, desk, near, sample

pytestmark = pytest.mark.long

PHOTOS = [sample("sklearn", f"datasets/images/{name}.jpg") for name in ("china", "flower")]
PALACE, DAISY = 698, 985

# The network that the weights are loaded into, and networks whose outputs are not one tensor.
NETWORKS = """
import torch
from efficientnet_lite_pytorch import EfficientNet

def lite0():
    return EfficientNet.from_name("efficientnet-lite0")

class Halves(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(2, 2, bias=False, dtype=torch.bfloat16)

class Named(Halves):
    def forward(self, inputs):
        assert not self.training and torch.is_inference_mode_enabled()
        return {"sum": self.linear(inputs).sum(dim=1), "same": inputs}

class Unnamed(Halves):
    def forward(self, inputs):
        return inputs, self.linear(inputs)

class Lengths(Halves):
    def forward(self, texts):
        return [{"length": len(text)} for text in texts]

class Kind(Halves):
    def forward(self, inputs):
        return [{"floating": inputs.is_floating_point()} for _ in inputs]

class Wrong(Halves):
    def forward(self, inputs):
        return "a text"

def no_module():
    return 3
"""


@pytest.fixture(scope="module")
def efficientnet() -> Path:
    return exported("efficientnet", "torch", *PHOTOS)


@pytest.fixture(scope="module")
def torch() -> Iterator[Desk]:
    with desk("torch") as process:
        yield process


@pytest.fixture(scope="module")
def small() -> Path:
    return exported("small_networks", "torch")


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifacts") / "code"
    folder.mkdir()
    (folder / "networks.py").write_text(NETWORKS)
    return folder


def state(torch: Desk, weights: Path, target: str, code: Path, **more: str) -> Model:
    """Load a class and its weights, as an artifact has them."""
    artifact = code.parent / weights.name.replace(".", "-")
    artifact.mkdir(exist_ok=True)
    for name, path in (("code", code), ("data", weights)):
        (artifact / name).unlink(missing_ok=True)
        (artifact / name).symlink_to(path)
    return torch.load(artifact / "data", "torch_state", loader="import", target=target, data="data", **more)


@pytest.mark.parametrize("form", ["torchscript", "torch_export", "torch_state"])
def test_answers_are_those_of_the_network(torch: Desk, efficientnet: Path, code: Path, form: str) -> None:
    inputs, answers = np.load(efficientnet / "inputs.npy"), np.load(efficientnet / "answers.npy")
    assert answers.argmax(axis=1).tolist() == [PALACE, DAISY]
    declared = {} if form == "torch_export" else {"input_type": "float32[3,224,224]"}
    if form == "torch_state":
        model = state(torch, efficientnet / "weights.pth", "networks:lite0", code, **declared)
    else:
        model = torch.load(efficientnet / ("network.pt" if form == "torchscript" else "network.pt2"), form, **declared)
    assert model.input_type == "float32[3,224,224]"
    assert model.max_batch == (1024 if form == "torch_export" else None)
    assert "torch 2." in model.runtime
    assert near(model.predict(inputs), answers, 1e-4)
    assert near(model.predict(inputs[:1]), answers[:1], 1e-4)


@pytest.mark.parametrize("form", ["torchscript", "torch_export"])
def test_a_reserved_gpu_that_is_not_there_is_said(torch: Desk, efficientnet: Path, form: str) -> None:
    path = efficientnet / ("network.pt" if form == "torchscript" else "network.pt2")
    assert torch.load(path, form).device == ""
    model = torch.load(path, form, has_gpu=True, output="labels")
    assert model.device == "CPU"
    assert model.predict(np.load(efficientnet / "inputs.npy")) == [PALACE, DAISY]


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("form", ["torchscript", "torch_state"])
def test_a_network_in_half_precision(torch: Desk, efficientnet: Path, code: Path, form: str, precision: str) -> None:
    inputs, answers = np.load(efficientnet / "inputs.npy"), np.load(efficientnet / "answers.npy")
    more = {"input_type": "float32[3,224,224]", "precision": precision}
    if form == "torch_state":
        model = state(torch, efficientnet / "weights.pth", "networks:lite0", code, **more)
    else:
        model = torch.load(efficientnet / "network.pt", "torchscript", **more)
    outputs = np.array(model.predict(inputs))
    assert outputs.argmax(axis=1).tolist() == [PALACE, DAISY]
    # Of 11 or 8 binary digits, so the answers differ from those of 24, and not by much.
    assert 0 < np.abs(outputs - answers).max() < 0.1 * np.abs(answers).max()


def test_labels(torch: Desk, efficientnet: Path) -> None:
    model = torch.load(efficientnet / "network.pt", "torchscript", output="labels", input_type="float64[3,224,224]")
    assert model.predict(np.load(efficientnet / "inputs.npy")) == [PALACE, DAISY]


def test_a_file_that_tells_no_type_takes_a_list_of_float32(torch: Desk, efficientnet: Path) -> None:
    assert torch.load(efficientnet / "network.pt", "torchscript").input_type == "float32[*]"


@pytest.mark.parametrize("kind", ["uint8", "float64", "int64"])
def test_pictures_are_converted_and_indices_are_not(torch: Desk, small: Path, code: Path, kind: str) -> None:
    model = state(torch, small / "eye.pth", "networks:Kind", code, input_type=f"{kind}[2]")
    assert model.predict(np.ones((1, 2))) == [{"floating": kind != "int64"}]


def test_outputs_by_name(torch: Desk, small: Path, code: Path) -> None:
    rows = np.array([[1.0, 2.0], [3.0, 4.0]])
    eye = small / "eye.pth"
    both = [{"sum": 3.0, "same": [1.0, 2.0]}, {"sum": 7.0, "same": [3.0, 4.0]}]
    assert state(torch, eye, "networks:Named", code).predict(rows) == both
    assert state(torch, eye, "networks:Named", code, output="sum").predict(rows) == [3.0, 7.0]
    unnamed = state(torch, eye, "networks:Unnamed", code, output="output_1,output_0").predict(rows[:1])
    assert unnamed == [{"output_1": [1.0, 2.0], "output_0": [1.0, 2.0]}]


def test_a_program_states_its_outputs(torch: Desk, small: Path) -> None:
    rows = np.array([[1.0, 2.0], [3.0, 4.0]])
    model = torch.load(small / "heads.pt2", "torch_export")
    assert (model.output_type, model.max_batch) == ("twice: float32[2], total: float32, is_large: bool", 64)
    assert model.predict(rows) == [
        {"twice": [2.0, 4.0], "total": 3.0, "is_large": False},
        {"twice": [6.0, 8.0], "total": 7.0, "is_large": True},
    ]
    model = torch.load(small / "heads.pt2", "torch_export", output="total,twice")
    assert model.output_type == "total: float32, twice: float32[2]"
    assert model.predict(rows[:1]) == [{"total": 3.0, "twice": [2.0, 4.0]}]
    with pytest.raises(Refused, match="has no output sum: it has twice, total, is_large"):
        torch.load(small / "heads.pt2", "torch_export", output="sum")


def test_what_is_not_finite_among_the_outputs_of_a_program(torch: Desk, small: Path) -> None:
    model = torch.load(small / "pair.pt2", "torch_export")
    assert model.output_type == "output_0: float32[2], output_1: float32[2]"
    assert model.predict(np.array([[1.0, 0.0]])) == [{"output_0": [1.0, 0.0], "output_1": [0.0, None]}]


@pytest.mark.parametrize(
    ("target", "output", "cause"),
    [
        ("networks:Named", "total", "returned no output total: it has sum, same"),
        ("networks:Named", "labels", "needs a network with one output, and this one has sum, same"),
        ("networks:Wrong", "sum", "returned a str: expected a tensor"),
    ],
)
def test_what_the_network_did_not_return(
    torch: Desk, small: Path, code: Path, target: str, output: str, cause: str
) -> None:
    model = state(torch, small / "eye.pth", target, code, output=output)
    with pytest.raises(Refused, match=f"ModelFailed: .*{cause}"):
        model.predict(np.ones((1, 2)))


def test_texts_go_to_a_network_that_takes_them(torch: Desk, small: Path, code: Path) -> None:
    model = state(torch, small / "eye.pth", "networks:Lengths", code, input_type="string")
    assert model.predict(["one", "three"]) == [{"length": 3}, {"length": 5}]


def test_a_program_for_batches_of_one_size(torch: Desk, small: Path) -> None:
    model = torch.load(small / "four.pt2", "torch_export")
    assert (model.input_type, model.max_batch, model.output_type) == ("int32[2]", 4, "int32[2]")
    assert model.predict(np.array([[1, 2], [3, 4], [5, 6]])) == [[2, 4], [6, 8], [10, 12]]


@pytest.mark.parametrize(
    ("weights", "target", "cause"),
    [
        ("checkpoint.pth", "networks:Named", "is not a state dict: it holds keys epoch, state: save it with"),
        ("pickled.pth", "networks:Named", "holds Python objects besides tensors: save it with"),
        ("other.pth", "networks:Named", r"cannot be loaded: RuntimeError: .*Missing key.*linear\.weight"),
        ("eye.pth", "networks:no_module", r"networks:no_module\(\) made a int: expected a torch\.nn\.Module"),
        ("eye.pth", "networks:Absent", "cannot be loaded: AttributeError"),
    ],
)
def test_weights_that_do_not_fit(torch: Desk, small: Path, code: Path, weights: str, target: str, cause: str) -> None:
    with pytest.raises(Refused, match=f"ContainerFailed: .*{cause}"):
        state(torch, small / weights, target, code)


def test_a_module_of_two_inputs_takes_those_that_are_declared(torch: Desk, small: Path) -> None:
    model = torch.load(small / "sum.pt", "torchscript", input_type="right: float32[2], left: int64[2]")
    assert model.predict([{"left": [1, 2], "right": [0.5, 4]}]) == [[1.5, 6.0]]


def test_a_program_of_two_inputs(torch: Desk, small: Path) -> None:
    model = torch.load(small / "sum.pt2", "torch_export")
    assert (model.input_type, model.max_batch) == ("left: int32[2], right: int32[2]", 4)
    rows = [{"left": [1, 2], "right": [3, 4]}, {"right": [0, 1], "left": [5, 5]}]
    assert model.predict(rows) == [[4, 6], [5, 6]]
