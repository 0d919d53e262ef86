"""The rules for pipelines: what their steps may ask, and which types fit. Values in, values out."""

from clipper.errors import Conflict, InvalidArgument, NotFound
from clipper.settings.application import NewApplication
from clipper.settings.pipeline import QUERY, read_graph
from clipper.settings.pipeline_types import StepType, check_types
from clipper.supervisor.catalog import Catalog
from clipper.supervisor.registry.records import ApplicationRecord
from clipper.values.records import ValueType, parse_type, with_open_lengths


def check_pipeline(record: ApplicationRecord, catalog: Catalog, *, may_lack: bool = False) -> None:
    """Check an application that is a pipeline, or may be a step of one.

    Raises InvalidArgument or NotFound; the message begins with the place in the settings. ``may_lack``: whether
    applications that its steps ask may still be missing.
    """
    if not record.steps:
        if record.output is not None:
            raise InvalidArgument("output: it is for applications with steps; without them the policy answers")
        if record.max_replicas is not None:
            raise InvalidArgument("max_replicas: it is for applications with steps; give a model a range of replicas")
        return
    graph = read_graph(record.name, record.steps, record.output)
    if record.links:
        raise InvalidArgument("links: an application with steps links no models: its steps ask applications that do")
    if record.selection.policy != "single":
        raise InvalidArgument("policy: an application with steps selects nothing: set the policies of its steps")
    for node in graph.nodes:
        step = catalog.applications.get(node.application)
        if step is None and node.application != record.name:
            if may_lack:
                continue
            raise NotFound(
                f"steps.{node.name}.application: application {node.application!r} does not exist: create it first, or "
                "name another"
            )
        if node.application == record.name or (step is not None and step.steps):
            raise InvalidArgument(
                f"steps.{node.name}.application: {node.application!r} is a pipeline itself: name its steps here instead"
            )
        wanted = None if step is None else step.selection.features
        if isinstance(wanted, int) and wanted != record.selection.features:
            raise InvalidArgument(
                f"steps.{node.name}.application: {node.application!r} needs {wanted} features with each query: set "
                f"features to {wanted} here, too"
            )
    check_is_no_step(record.name, catalog)
    check_types(
        graph, parse_type(record.input_type), {node.name: _step_type(node.application, catalog) for node in graph.nodes}
    )


def check_is_no_step(name: str, catalog: Catalog) -> None:
    """Raise Conflict if a pipeline asks this application, so that it must stay, and be no pipeline itself."""
    for record in catalog.applications.values():
        for step, each in record.steps.items():
            if (each.application or f"{record.name}.{step}") == name:
                raise Conflict(
                    f"application {name!r} is the step {step!r} of {record.name!r}: change or delete that first"
                )


def input_type_of(new: NewApplication, catalog: Catalog) -> str | None:
    """Return the input type of a new pipeline whose query is a step's input as it is; None if there is none."""
    for node in read_graph(new.name, new.steps, new.output).nodes:
        step = catalog.applications.get(node.application)
        (name, value), *others = node.input
        if step is not None and name is None and not others and not node.for_each and str(value[0]) == QUERY:
            return step.input_type
    return None


def _step_type(name: str, catalog: Catalog) -> StepType:
    record = catalog.applications.get(name)
    if record is None:
        return StepType(None, None)
    input_type = parse_type(record.input_type)
    found: set[ValueType | None] = set()
    for link in record.links:
        version = link.version or catalog.current(link.model)
        if not link.shadow and version is not None:
            of_version = catalog.version(link.model, version)
            output = None if of_version.output_type is None else parse_type(of_version.output_type)
            # The first answer does not show that all have its lengths.
            found.add(output if output is None or of_version.output_is_declared else with_open_lengths(output))
    return StepType(input_type, found.pop() if len(found) == 1 else None)
