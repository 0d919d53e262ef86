"""The structs of settings against what the Python client calls them, and what is read of their fields."""

from typing import Any, get_type_hints

import msgspec
import pytest
from msgspec import UNSET, Struct

from clipper.control.snapshot import ApplicationSnapshot
from clipper.errors import InvalidArgument
from clipper.settings.application import (
    ApplicationChange,
    ApplicationOptions,
    ApplicationSettings,
    Configured,
    NewApplication,
    Selection,
)
from clipper.settings.fields import check_range, check_ranges, given, settings_of, shared
from clipper.settings.replicas import ReplicaRange, check_replicas
from clipper.settings.version import Batching, Deployment, DeploymentOptions, VersionSpec
from clipper.supervisor.registry.records import ApplicationRecord, VersionRecord

# The client makes a policy and a loss of a name and parameters; the server takes both as one.
COMPOSED = {"policy": str, "loss": str}
PARAMETERS = {"policy_parameters", "loss_parameters"}


@pytest.mark.parametrize(
    ("kind", "options"), [(Deployment, DeploymentOptions), (ApplicationSettings, ApplicationOptions)]
)
def test_the_clients_keywords_are_the_settings_with_their_types(kind: type[Struct], options: Any) -> None:
    expected = {one.keyword: COMPOSED.get(one.keyword, one.type) for one in settings_of(kind)}
    assert {name: hint for name, hint in get_type_hints(options).items() if name not in PARAMETERS} == expected


@pytest.mark.parametrize("kind", [Deployment, NewApplication])
def test_every_setting_has_a_default_in_its_range(kind: type[Struct]) -> None:
    required = {"name": "a", "artifact": "ab", "loader": "import", "target": "m:f"}
    check_ranges(kind(**{name: required[name] for name in kind.__struct_fields__ if name in required}))
    assert [one.keyword for one in settings_of(kind) if one.default is msgspec.NODEFAULT] == []


def test_own_settings_come_before_inherited_ones_and_inner_ones_in_place() -> None:
    names = [one.keyword for one in settings_of(Deployment)]
    assert names[:6] == ["version", "replicas", "batching", "max_batch", "batch_delay_ms", "cache"]
    assert names.index("sample") < names.index("input_type")
    assert names.count("sample") == 1


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (Selection(inherit=1.5), "inherit is 1.5: expected a number from 0 to 1"),
        (Selection(ramp=0.0), "ramp is 0.0: expected a number above 0, at most 0.5"),
        (Selection(half_life=0), "half_life is 0: expected"),
        (Selection(features=65), "features is 65: expected a number from 1 to 64"),
        (Selection(prior_weight=float("nan")), "prior_weight is nan: expected"),
        (Selection(inherit=True), "inherit is True: expected a number"),
        (Deployment("a", "import", "m:f", batching=Batching(delay_ms=-1)), "batch_delay_ms is -1"),
        (ApplicationChange(slo_ms=0), "slo_ms is 0: expected a number above 0"),
        (ApplicationChange(half_life=0), "half_life is 0: expected"),
    ],
)
def test_a_number_out_of_its_range_is_told(settings: Struct, says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        check_ranges(settings)


def test_what_is_no_number_has_no_range() -> None:
    check_ranges(Selection(features="input", ramp=None, half_life=None))
    check_ranges(ApplicationChange(default_output=10**9, policy="exp3"))
    check_range("lines", 1, 1)


@pytest.mark.parametrize(
    "replicas", [0, 65, ReplicaRange(0, 0), ReplicaRange(-1, 2), ReplicaRange(3, 2), ReplicaRange(1, 65)]
)
def test_replicas_that_cannot_be(replicas: int | ReplicaRange) -> None:
    check_replicas(64)
    check_replicas(ReplicaRange(64, 64))
    with pytest.raises(InvalidArgument, match="replicas"):
        check_replicas(replicas)


def test_a_change_says_what_is_given_and_nothing_else() -> None:
    change = msgspec.json.decode(b'{"slo_ms": 5, "ramp": null, "policy": {"name": "exp3"}}', type=ApplicationChange)
    assert given(change) == {"slo_ms": 5.0, "ramp": None, "policy": Configured("exp3")}
    assert {getattr(ApplicationChange(), name) for name in ApplicationSettings.__struct_fields__} == {UNSET}
    for body in (b'{"slo": 5}', b'{"slo_ms": "fast"}', b'{"wait": "long"}', b'{"slo_ms": null}'):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(body, type=ApplicationChange)


def test_shared_fields() -> None:
    deployment = Deployment("ab", "import", "m:f", cpus=2.0, sample=[1], replicas=3)
    values = shared(deployment, VersionSpec)
    assert values.keys() == set(VersionSpec.__struct_fields__)
    assert (values["cpus"], values["sample"]) == (2.0, [1])


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        (ApplicationSettings, ApplicationRecord),
        (ApplicationSettings, ApplicationSnapshot),
        (Deployment, VersionRecord),
    ],
)
def test_what_others_have_of_the_settings_is_of_their_type(kind: type[Struct], other: type[Struct]) -> None:
    """A record and a snapshot hold some in a form of their own: a default output and an input type as texts."""
    types = {one.name: one.type for one in settings_of(kind)}
    alike = {field.name: _bare(field.type) for field in msgspec.structs.fields(other)}
    common = types.keys() & alike.keys() - {"default_output", "version", "input_type"}
    assert common
    assert {name: alike[name] for name in common} == {name: types[name] for name in common}


def _bare(kind: Any) -> Any:
    return kind.__origin__ if hasattr(kind, "__metadata__") else kind
