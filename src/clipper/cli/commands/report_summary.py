"""A report in words and tables, for the terminal and the page."""

import json
from collections.abc import Sequence
from contextlib import suppress

from clipper.api.recent import LastMinute
from clipper.api.reports import Bounds, Frontier, Report, ReportedModel, ReportGroup
from clipper.base.tls.expiry import duration
from clipper.control.descriptions import ModelDescription, Standing

COLUMNS = (
    "model",
    "chosen now",
    "feedback",
    "mean loss",
    "interval",
    "worse than the best by",
    "sure to be worse",
    "more feedback",
    "not in time",
    "batch p50 ms",
    "batch p99 ms",
)

FRONTIER_COLUMNS = ("model", "cost", "quality", "on the frontier")
STEP_COLUMNS = ("step", "asks", "queries", "defaults", "errors", "mean ms", "p99 ms", "share of time", "models")


def conclusion(report: Report, group: ReportGroup) -> str:
    """Say which model is better, how sure that is, and how long it takes until it is known."""
    names = {model.model: name_of(model) for model in group.models}
    compared = _count(group.feedback if group.compared is None else group.compared)
    best = names.get(group.best or "", group.best)
    if group.verdict == "no_feedback":
        return "There is no feedback yet, so nothing is known about the models."
    if group.verdict == "alone":
        return f"{best} is the only linked model: there is nothing to compare it with."
    if group.test is not None and group.test.winner is not None and group.verdict != "open":
        return f"The test is over: {of_test(group.test, names.get(group.test.winner))}."
    if group.verdict == "best":
        return f"{best} is the best: this is {_percent(group.sureness)} sure, after {compared} pieces of feedback."
    if group.verdict == "as_good":
        return (
            f"No model is better than {best} by more than {report.tolerance:g}: this is {_percent(report.confidence)} "
            f"sure, after {compared} pieces of feedback. It is {_percent(group.sureness)} sure that it is the best."
        )
    if best is None:
        return "Not known."
    text = f"Not known yet. {best} is ahead; it is {_percent(group.sureness)} sure that it is the best. "
    if group.more_feedback is None:
        return text + "How much feedback is needed cannot be said: some model has none, or is too much like it."
    text += f"If mean losses stay as they are, that takes some {_count(group.more_feedback)} more pieces of feedback"
    if group.more_s is None:
        return text + "."
    return text + f": {duration(group.more_s)} at the rate since the workers started."


def of_test(test: Standing, winner: str | None = None) -> str:
    """Say the state of a policy that is a test; ``winner`` is the winner's name to show."""
    if test.winner is None:
        return (
            f"the test is open, after {_count(test.observations)} pieces of feedback: it ends with confidence "
            f"{test.confidence:g}, tolerance {test.tolerance:g}"
        )
    return (
        f"{winner or test.winner} is the best, confidence {test.confidence:g}, tolerance {test.tolerance:g}, "
        f"after {_count(test.observations)} pieces of feedback; it answers alone"
    )


def rows(group: ReportGroup) -> list[Sequence[str | None]]:
    """Return the cells of each row in the order of ``COLUMNS``; None for an empty cell."""
    return [
        (
            shown(model),
            f"{model.share:.1%}" if model.is_linked else None,
            _count(model.scored),
            None if model.mean_loss is None else f"{model.mean_loss:.4f}",
            _bounds(model.interval) if model.scored else None,
            None if model.worse_by is None else _bounds(model.worse_by),
            None if model.sureness is None else _percent(model.sureness),
            None if model.more_feedback is None else _count(model.more_feedback),
            f"{model.missing / model.asked:.2%}" if model.asked else None,
            None if model.latency is None else f"{model.latency.p50_ms:.3g}",
            None if model.latency is None else f"{model.latency.p99_ms:.3g}",
        )
        # Linked models first, and the best first among them.
        for model in sorted(group.models, key=lambda it: (not it.is_linked, it.mean_loss is None, it.mean_loss or 0.0))
    ]


def basis(group: ReportGroup) -> str | None:
    """Return the feedback that a comparison rests on, in words; None if it is all feedback."""
    is_plain = group.estimator == "pooled" and (group.compared is None or group.compared >= group.feedback - 0.5)
    return None if is_plain or not group.basis else group.basis


def notes(report: Report) -> list[str]:
    """Return the assumptions of the intervals, and the numbers of the application as a whole."""
    queries, defaults, errors = report.queries, sum(report.defaults.values()), sum(report.errors.values())
    estimators = {group.estimator for group in report.groups}
    changes = "if mean losses do not change and" if "pooled" in estimators else "if"
    found = [
        f"intervals hold with confidence {report.confidence:g} at all times at once, {changes} feedback comes whatever "
        "the loss is",
        f"policy {report.policy}, loss {report.loss}; since the workers started: {queries:,d} queries, "
        f"{_reasons('defaults', defaults, report.defaults)}, {_reasons('errors', errors, report.errors)}, "
        f"{report.slo_misses:,d} not within {report.slo_ms:g} ms",
    ]
    if report.latency is not None:
        found[1] += f", p99 {report.latency.p99_ms:.3g} ms"
    recent = report.last_minute
    if has_steps(report):
        found = found[1:]
    return found if recent is None else [*found, f"in the last minute: {of_last_minute(recent)}", *explanations(recent)]


def of_frontier(found: Frontier) -> str:
    """Say what a query costs and how good its answer is, beside the budget and what a mixture of models would reach."""
    parts = ["no query yet" if found.cost is None else f"a query costs {found.cost:.4g} on average"]
    if found.max_cost_per_query is not None:
        parts[0] += f" of at most {found.max_cost_per_query:g}"
    if found.quality is not None:
        parts.append(f"the quality of answers is {found.quality:.4f}")
        if found.min_quality is not None:
            parts[-1] += f" of at least {found.min_quality:g}"
    elif found.min_quality is not None:
        parts.append(f"there is no feedback on answers, so nobody knows whether they keep {found.min_quality:g}")
    if found.possible is not None and len(found.models) > 1:
        parts.append(f"by shares of the queries alone its models reach {found.possible:.4f} at that cost")
    return "cost and quality since the workers started: " + "; ".join(parts)


def frontier_rows(found: Frontier) -> list[Sequence[str]]:
    return [
        (each.model, f"{each.cost:.4g}", f"{each.quality:.4f}", "yes" if each.is_on_frontier else "no")
        for each in found.models
    ]


def has_steps(report: Report) -> bool:
    """Whether it is a report on a pipeline."""
    return [step.step for step in report.steps] not in ([], [report.application])


def step_rows(report: Report) -> list[Sequence[str]]:
    taken_ms = [0.0 if step.latency is None else step.queries * step.latency.mean_ms for step in report.steps]
    return [
        (
            step.step,
            step.application,
            f"{step.queries:,d}",
            f"{sum(step.defaults.values()):,d}",
            f"{sum(step.errors.values()):,d}",
            "-" if step.latency is None else f"{step.latency.mean_ms:.3g}",
            "-" if step.latency is None else f"{step.latency.p99_ms:.3g}",
            f"{step_ms / max(sum(taken_ms), 1e-9):.0%}",
            ", ".join(f"{model.model}:{model.version}" for model in step.models),
        )
        for step, step_ms in zip(report.steps, taken_ms, strict=True)
    ]


def of_last_minute(recent: LastMinute) -> str:
    """Write the last minute's outcomes as text, e.g. ``60 queries, 58 errors (model_error 58), 2 late``."""
    parts = [f"{recent.queries:,d} {'query' if recent.queries == 1 else 'queries'}" if recent.queries else "no queries"]
    for what, by_reason in (("errors", recent.errors), ("defaults", recent.defaults)):
        if total := sum(by_reason.values()):
            parts.append(_reasons(what, total, by_reason))
    return ", ".join([*parts, *([f"{recent.late:,d} late"] if recent.late else ())])


def explanations(recent: LastMinute) -> list[str]:
    """Return a line for each reason of an error or default in the last minute: its latest explanation."""
    return [f"the last {reason}: {text}" for reason, text in sorted(recent.explanations.items())]


def title(group: ReportGroup) -> str:
    return "all queries" if group.context is None else f"context {shown_context(group.context)}"


def shown_context(context: str) -> str:
    """Quote a context, which may be any text of a client, if it could control a terminal."""
    return context if context.isprintable() else json.dumps(context)


def read_context(text: str) -> str:
    """Return the context that ``shown_context`` shows as this text."""
    with suppress(ValueError):
        if isinstance(value := json.loads(text), str) and shown_context(value) == text:
            return value
    return text


def shown(model: ReportedModel) -> str:
    marks = [mark for mark, is_so in (("shadow", model.is_shadow), ("not linked", not model.is_linked)) if is_so]
    return name_of(model) + (f" ({', '.join(marks)})" if marks else "")


def name_of(model: ReportedModel | ModelDescription) -> str:
    """Return a model's name with its version, as lists show it."""
    is_pinned = model.version is None or ":" in model.model
    return model.model if is_pinned else f"{model.model}:{model.version}"


def _bounds(bounds: Bounds) -> str:
    return f"{bounds.low:.4f} to {bounds.high:.4f}"


def _percent(share: float) -> str:
    """Write a share as text: never 100 %, which nothing reaches, and without the number below even chances."""
    if share < 0.5:
        return "less than 50 %"
    return "over 99.99 %" if share > 0.9999 else f"{100 * share:.4g} %" if share >= 0.99 else f"{100 * share:.3g} %"


def _count(number: float) -> str:
    return f"{number:,.0f}"


def _reasons(what: str, total: int, by_reason: dict[str, int]) -> str:
    if not total:
        return f"no {what}"
    each = ", ".join(f"{reason} {count:,d}" for reason, count in sorted(by_reason.items()) if count)
    return f"{total:,d} {what} ({each})"
