"""Conclusions from the records: which versions run, how long a batch may, what fits."""

import pytest
from msgspec.structs import replace

from clipper.control.snapshot import Newcomer
from clipper.errors import InvalidArgument
from clipper.settings.application import Link
from clipper.settings.version import Batching, VersionSpec
from clipper.supervisor.managers.reconcile.plan import Slot
from clipper.supervisor.registry.records import ApplicationRecord, ModelRecord, VersionRecord
from clipper.supervisor.rollout import wanted
from clipper.values.types import ModelId
from tests.supervisor.rollout.fake_records import records_of

MODEL = ModelRecord("m", current="3", previous="2")


def version(name: str, **fields: object) -> VersionRecord:
    spec = VersionSpec("a", "import", "m:f")
    given = {"state": "ready", "input_type": "float64[2]", "replicas_wanted": int(name), **fields}
    return VersionRecord("m", name, spec, Batching(), True, created_at=float(name), **given)  # type: ignore[arg-type]


def app(name: str, *links: Link, input_type: str = "float64[2]", slo_ms: float = 20.0) -> ApplicationRecord:
    return ApplicationRecord(name, input_type, slo_ms, links=links)


def test_which_versions_run() -> None:
    records = records_of(
        MODEL,
        *map(version, "123"),
        version("4", kept=True),
        version("5", promotion=1, state="starting"),
        version("6", kept=True, state="failed"),
        version("7", state="sleeping"),
        app("a", Link("m"), Link("other")),
        app("b", Link("m", "7")),
    )
    others = {ModelId("m", name): int(name) for name in "3457"}
    assert wanted.running(records) == {ModelId("m", "2"): 1, **others}, "the previous version keeps one"
    records.keep_previous = 9
    assert wanted.running(records) == {ModelId("m", "2"): 2, **others}
    records.keep_previous = 0
    assert wanted.running(records) == others


def test_what_a_newcomer_is_compared_with_runs_until_it_is_through() -> None:
    compared = replace(app("a", Link("m")), newcomers=(Newcomer(1, "m", "3", "1", True),))
    records = records_of(MODEL, *map(version, "123"), compared)
    assert ModelId("m", "1") in wanted.running(records)


def test_which_containers_of_an_earlier_supervisor_go_on() -> None:
    records = records_of(MODEL, version("1", state="sleeping"), version("2"), version("3"))
    spec = records.versions[ModelId("m", "3")].spec

    def goes_on(name: str, index: int, spec: VersionSpec = spec) -> bool:
        return wanted.goes_on(records, wanted.running(records), Slot("m", name, index), spec)

    assert goes_on("3", 1) and goes_on("3", 3) and goes_on("2", 1)
    assert not goes_on("3", 4) and not goes_on("2", 2), "one more than wanted"
    assert not goes_on("1", 1), "it sleeps"
    assert not goes_on("4", 1), "it was removed"
    assert not goes_on("3", 1, VersionSpec("b", "import", "m:f")), "another was deployed under its name"
    records.versions[ModelId("m", "3")] = replace(records.versions[ModelId("m", "3")], spec=replace(spec, sample="1"))
    assert goes_on("3", 1), "a note in Docker has no sample"
    assert not goes_on("3", 1, replace(spec, sample="2"))


def test_a_batch_may_run_for_ten_times_the_largest_slo_that_may_await_it() -> None:
    records = records_of(MODEL, app("a", Link("m"), slo_ms=20), app("b", Link("m", "2"), slo_ms=9000))
    assert wanted.batch_timeout_s(records, "m") == 90.0
    assert wanted.batch_timeout_s(records, "other") == 30.0


@pytest.mark.parametrize(
    ("application", "model", "fit"),
    [
        ("float64[4]", "float64[4]", True),
        ("float64[*]", "float64[4]", True),
        ("float64[4]", "float64[*]", True),
        ("float64[4]", "float64[5]", False),
        ("float64[*,*]", "float64[2,*]", True),
        ("float64[3,*]", "float64[2,*]", False),
        ("float64[4]", "float32[4]", False),
        ("float64[2,2]", "float64[4]", False),
        ("float64[*,2]", "float64[2,2]", True),
        ("float64[2,2]", "float64[*,2]", False),  # the model wants each row's dimensions before its data
        ("string", "string", True),
        ("string", "bytes", False),
    ],
)
def test_which_input_types_fit(application: str, model: str, fit: bool) -> None:
    assert wanted.fits(application, model) is fit
    try:
        wanted.check_fits(app("a", input_type=application), version("1", input_type=model))
    except InvalidArgument as error:
        assert not fit and application in str(error) and model in str(error)
    else:
        assert fit


@pytest.mark.parametrize(
    ("default", "declared", "learned", "fits"),
    [
        ("0", "float64[]", None, True),
        ("[0,0]", "float32[2]", None, True),
        ("[0,0,0]", "float32[2]", None, False),
        ('"none"', "label: string, scores: float32[2]", None, False),
        ('{"label":"none","scores":[0,0]}', "label: string, scores: float32[2]", None, True),
        ('"none"', None, "float64[]", True),  # what was learned binds typed protocols alone
        (None, "float64[]", None, True),
        ("null", "float32[2]", None, True),
    ],
)
def test_a_default_is_of_the_declared_output_type(
    default: str | None, declared: str | None, learned: str | None, fits: bool
) -> None:
    record = replace(version("1", output_type=learned), spec=replace(version("1").spec, output_type=declared))
    try:
        wanted.check_fits(replace(app("a"), default_output=default), record)
    except InvalidArgument as error:
        assert not fits and f"default output {default} " in str(error) and f"expected {declared}" in str(error)
    else:
        assert fits


def test_a_default_is_of_the_type_that_code_declares() -> None:
    declared = version("1", output_type="float64[10]", output_is_declared=True)
    wanted.check_fits(
        replace(app("a"), default_output="0"), replace(declared, spec=replace(declared.spec, framework="onnx"))
    )
    wanted.check_fits(replace(app("a"), default_output="null"), declared)
    with pytest.raises(InvalidArgument, match=r"expected float64\[10\]"):
        wanted.check_fits(replace(app("a"), default_output="0"), declared)


def test_a_version_whose_type_is_not_known_yet_fits() -> None:
    wanted.check_fits(app("a"), version("1", input_type=None))


def test_versions_that_nothing_needs_are_removed_beyond_a_number() -> None:
    states = [
        "sleeping",
        "failed",
        "sleeping",
        "sleeping",
        "failed",
        "ready",
        "sleeping",
        "ready",
        "starting",
        "sleeping",
    ]
    versions = [version(str(number), state=state) for number, state in enumerate(states)]
    pinning = ApplicationRecord("app", "string", 20.0, links=(Link("m", "0"),))
    model = ModelRecord("m", current="5", previous="6")
    records = records_of(pinning, model, *versions)
    # Of 1, 2, 3, 4 and 9: 0 is pinned, 5 and 6 are current and previous, 7 and 8 are about to sleep or to come up.
    removed = [[id_.version for id_ in wanted.to_remove(records, keep)] for keep in (1, 3, 5, 10)]
    assert removed == [["1", "2", "3", "4"], ["1", "2"], [], []]
