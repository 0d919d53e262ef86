"""The figures on nets: what is deployed where, and what a page shows."""

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from benchmarks.gpu import figures as kit
from benchmarks.gpu.figures import FULL, SHORT, figures, replica_counts
from benchmarks.gpu.nets import FASHION, NETS, deploy
from benchmarks.gpu.place import Place
from benchmarks.paper.batching_gain import RULES
from benchmarks.peers.results import Pair, Results, Side
from benchmarks.peers.rounds import Round
from benchmarks.peers.running import PeerFailed
from scripts.real_models import requirements

USE = {
    "gpu": "0",
    "seen": 3,
    "mean_utilization": 0.5,
    "most_utilization": 1.0,
    "most_used_mib": 2_000,
    "memory_mib": 24_000,
}
ROUND = Round(1000.0, 1.0, 2.0, 0, 90.0)
SIDE = Side("0.7.0", {}, 1.0, 2.0, Pair({"32": [ROUND]}, {"32": [ROUND]}))
MACHINE: dict[str, object] = {"cores": 2, "processor": "a processor", "python": "3.11", "wrk": "wrk 4"}
# A single row of the second net takes longer than is asked for.
ROWS = {net.name: [{"rows": 1, "p50_ms": p50_ms, "p99_ms": 31.0}] for net, p50_ms in zip(NETS, (1.0, 29.0))}
ANSWERED = {"waiting": {"outputs_per_s": 1234.0, "p99_ms": 19.5}}
NUMBERS: dict[str, dict[str, Any]] = {
    "figure_3": {"within_ms": 20, "profiles": ROWS, "served": ROWS},
    "figure_4": {"rounds": 3, "models": {net.name: dict.fromkeys(RULES, ANSWERED) for net in NETS}},
    "figure_6": {"counts": [{"replicas": 1, "outputs_per_s": 100.0, "mean_ms": 1.0, "p99_ms": 2.0}]},
    "figure_11": {"results": msgspec.to_builtins(Results(MACHINE, 3, 3, {"net": {"pytriton": SIDE}}))},
}


@pytest.mark.parametrize("place", [Place(), Place(2), Place(2, is_pretended=True)])
def test_a_part_of_the_page_says_where_it_was_measured(place: Place) -> None:
    for figure in figures(place, FULL):
        more = {"place": place.note, "computed_on": ["torch 2, on it"], "gpus": [USE] if place.gpus else []}
        text = figure.describe(NUMBERS[figure.name] | more)
        assert text.startswith(f"{place.note} Nets ran in torch 2, on it.\n")
        assert ("| 0 | 50% | 100% | 2,000 MiB | 24,000 MiB |" in text) == (place.gpus > 0)
        assert ("processor" in text.partition("\n")[0]) == (place in (Place(), Place(2, is_pretended=True)))
        assert figure.judge({}).broken == []


def test_all_figures_end_within_half_an_hour() -> None:
    assert sum(figure.within_s for figure in figures(Place(), FULL)) <= 1800


@pytest.mark.parametrize(("gpus", "counts"), [(0, [1, 2]), (1, [1, 2]), (2, [1, 2]), (4, [1, 2, 4]), (8, [1, 2, 4, 8])])
def test_there_are_as_many_replicas_as_gpus_or_two(gpus: int, counts: list[int]) -> None:
    assert replica_counts(Place(gpus)) == counts


class Server:
    """A server that only notes what is deployed, and says where it runs."""

    def __init__(self, runtime: str) -> None:
        self.deployed: list[tuple[str, ...]] = []
        self._runtime = runtime

    def deploy(self, models: dict[str, Any], *options: str) -> None:
        self.deployed += [(*models, *options)]

    def call(self, _method: str, _path: str) -> Any:
        return {"versions": [{"runtime": self._runtime}]}


@pytest.mark.parametrize(("place", "runtime"), [(Place(), "torch 2"), (Place(1), "torch 2, on cuda (NVIDIA L4)")])
def test_a_net_is_deployed_with_a_gpu_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, place: Place, runtime: str
) -> None:
    monkeypatch.setattr("benchmarks.gpu.nets.environment", lambda name: f"/{name}/python")
    server = Server(runtime)
    net = replace(FASHION, file=lambda: "network.pt")
    assert deploy(server, place, net, "fashion", "--batching", "aimd") == runtime
    [(name, *options)] = server.deployed
    assert name == "fashion" and options[-2:] == ["--batching", "aimd"]
    assert ("--gpus" in options) == (place.gpus > 0)


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of environments, of the data, and of a PyTorch that computes on a GPU."""
    said = SimpleNamespace(run=lambda *_, **__: SimpleNamespace(stdout="torch 2, on cuda (it)\n"))
    monkeypatch.setattr(kit, "subprocess", said)
    monkeypatch.setattr(kit, "environment", lambda name: f"/{name}/python")
    monkeypatch.setattr(kit, "facts", lambda: MACHINE)
    monkeypatch.setattr(kit, "fashion_mnist", lambda: SimpleNamespace(train=None))
    monkeypatch.setattr(kit, "pictures_file", lambda _data: "pictures.npz")
    monkeypatch.setattr(kit, "FASHION", replace(FASHION, file=lambda: "network.pt"))


@pytest.mark.usefixtures("stand_ins")
@pytest.mark.parametrize("place", [Place(), Place(1)])
def test_clipper_and_pytriton_have_one_net_and_environment(monkeypatch: pytest.MonkeyPatch, place: Place) -> None:
    asked: dict[str, Any] = {}

    def measure(name: str, peers: Any, task: Any, arguments: Any) -> Side:
        asked[name] = (peers, task, arguments)
        return SIDE

    monkeypatch.setattr(kit, "measure", measure)
    numbers = kit.beside(None, place, SHORT)
    assert numbers["computed_on"] == ["torch 2, on cuda (it)"] and set(asked) == set(kit.BESIDE)
    peers, task, arguments = asked["pytriton"]
    options = json.loads(peers["clipper"].settings["DEPLOY"])
    assert ("--gpus" in options) == (place.gpus > 0)
    assert options[options.index("--python") + 1] == f"/peers/{peers['pytriton'].environment}/python"
    assert task.made_in == f"peers/{peers['pytriton'].environment}" and task.reads == ("network.pt", "pictures.npz")
    assert requirements(task.made_in).is_file() and (arguments.rounds, arguments.seconds) == (1, 1)


@pytest.mark.usefixtures("stand_ins")
def test_a_peer_that_cannot_be_measured_fails_the_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kit, "measure", lambda *_: Side("0.7.0", {}, problem="it did not start"))
    with pytest.raises(PeerFailed, match="pytriton: it did not start"):
        kit.beside(None, Place(), SHORT)
