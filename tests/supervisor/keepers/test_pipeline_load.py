from clipper.settings.server import MAX_WORKERS
from clipper.supervisor.keepers.pipeline_load import PipelineMeter
from clipper.values.types import ModelId
from tests.supervisor.history.readings import answer, reading

ASKED = {("desk.a", "a"): ModelId("a", "1")}


def test_ended_workers_are_forgotten_and_silent_ones_are_not() -> None:
    """A worker that ends again and again has a new instance each time."""
    meter = PipelineMeter()
    counted = answer([reading(5, name="desk"), reading(5, name="desk.a"), reading(5, name="other")])
    for instance in range(3 * MAX_WORKERS):
        meter.look("desk", ASKED, {}, [(0, counted), (instance, counted)], float(instance))
    assert len(meter._before) == 2 * (MAX_WORKERS + 2)
    assert (0, "desk") in meter._before and (2 * MAX_WORKERS, "desk") in meter._before
