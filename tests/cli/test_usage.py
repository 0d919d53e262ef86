"""Commands that are used wrongly say what is right, and end with status 2."""

import pytest

from clipper import __version__
from clipper.base.build import form
from tests.cli.in_process import Run, usage_error


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("app create a --model m --model n --version 1", "NAME:VERSION"),
        ("app create a --model m --policy-parameter eta", "NAME=VALUE"),
        ("app create a --model m --half-life soon", "or none"),
        ("app create a --model m --cost m=much", "or auto"),
        ("app create a --model m --cost m=-1", "at least 0"),
        ("app create a --model m --cost 5", "MODEL=NUMBER"),
        ("app create a --model m --cost m=1e999", "at least 0"),
        ("app create a --model m --cost m=nan", "at least 0"),
        ("app link a m --cost often", "or auto"),
        ("app create a --model m --half-life 1.5", "whole number"),
        ("app update a", "nothing to change"),
        ("app update a --policy-parameter eta=1", "goes with --policy"),
        ("app update a --loss-parameter range=1", "goes with --loss"),
        ("observe a --query-id 1", "--label or --reward"),
        ("observe a --query-id 1 --label 1 --reward 1", "--label or --reward"),
        ("observe a --label 1", "--query-id or --input"),
    ],
)
def test_options_that_do_not_go_together(run: Run, arguments: str, says: str) -> None:
    assert says in usage_error(run, arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("start --docker-transport ucp", "'--docker-transport' (env var: 'CLIPPER_DOCKER_TRANSPORT'): 'ucp' is not"),
        ("start --docker-transport ucp", "'ucp' is not valid: expected unix, tcp"),
        ("deploy a b --framework onxx", "'--framework': 'onxx' is not valid: expected pickle, joblib, onnx"),
        (
            "deploy a b --batching aimb",
            "'--batching': 'aimb' is not valid: expected goodput, aimd, quantile",
        ),
        ("deploy a b --language java", "'--language': 'java' is not valid: expected python, binary, image"),
        ("deploy a b --manager podman", "'--manager': 'podman' is not valid: expected local, docker"),
        ("load a --rate 5 --arrivals poison", "'--arrivals': 'poison' is not valid: expected poisson, constant, burst"),
    ],
)
def test_misspelt_names_are_answered_with_those_that_there_are(run: Run, arguments: str, says: str) -> None:
    assert says in usage_error(run, arguments)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("deploy digits", "MODEL"),
        ("deploy digits m.pkl --batching clever", "aimd"),
        ("deploy digits m.pkl --replicas 0", "'0'"),
        ("deploy digits m.pkl --replicas 4..1", "4..1"),
        ("model scale digits 1..", "1..4"),
        ("deploy digits m.pkl --memory much", "512m"),
        ("deploy digits m.pkl --sample [1", "JSON"),
        ("deploy digits m.pkl --sample @nowhere.json", "nowhere.json cannot be read"),
        ("app create a --default {", "JSON"),
        ("app create a --version 2", "--model"),
        ("app update a", "--slo-ms"),
        ("predict a nul", "JSON"),
        ("start --workers 0", "workers"),
        ("serve m.pkl --name A/B", "--name"),
        ("load a", "--sweep"),
        ("load a --rate 0", "above 0"),
        ("load a --rate fast", "is not a number"),
        ("load a --rate nan", "is not a number"),
        ("load a --rate 100001", "100000"),
        ("load a --rate 5 --duration soon", "10s"),
        ("load a --rate 5 --duration 0s", "more than 0"),
        ("load a --rate 5 --duration 25h", "24h"),
        ("load a --rate 5 --connections 0", "--connections"),
        ("load a --rate 5 --width 3 --inputs f.jsonl", "--inputs sample"),
        ("fly", "fly"),
    ],
)
def test_wrong_usage(bare: Run, line: str, says: str) -> None:
    result = bare(*line.split())
    assert (result.status, result.out) == (2, "")
    assert says in result.err


def test_version(bare: Run) -> None:
    assert bare("--version").out.startswith(f"clipper {__version__} ({form()}")
