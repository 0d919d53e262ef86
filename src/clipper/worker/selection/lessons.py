"""Computes the lessons of a piece of feedback: losses, and increments to states."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from clipper.control.feedback import Feedback
from clipper.errors import NotFound, OutputTooLarge, PolicyFailed
from clipper.learning.mathematics.arms import Arms
from clipper.learning.mathematics.basis import tells_picked
from clipper.learning.mathematics.totals import TELLS_PICKED, Keyed
from clipper.learning.mathematics.weighing import has_begun, weighed
from clipper.learning.policies.policy import Choice, Combined, JudgedQuery, Totals
from clipper.values.outputs.output import MAX_READ_BYTES, Output, is_readable
from clipper.worker.selection.application import Application
from clipper.worker.selection.feedback.outcomes import mixed
from clipper.worker.selection.feedback.picking import Picked, how_picked, least_loss_increase, weights_of
from clipper.worker.selection.feedback.scoring import default_loss, lesson, loss_of_answer, score, shown_of_newcomers
from clipper.worker.selection.query import Query

TOO_LARGE_TO_COMPARE = (
    f"an output has over {MAX_READ_BYTES} bytes as JSON, too many to compare it with a label: judge the answer "
    "yourself, and send a reward from 0 to 1 with its query_id"
)
# The reason of a loss that the models' output caused.
_WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Joined:
    """A piece of feedback, joined with its query or input.

    Attributes:
        query: the query; None for feedback on an input.
        context: the context whose state it teaches, in addition to the application's own.
        totals: the totals that the policy uses in that context.
        choice: the selection. For feedback on an input, or on a query whose selection failed, the selection of now.
        outputs: the known outputs by model, as JSON texts; more come while further models are asked.
        wholes: for feedback on an input, the same outputs, of which ``outputs`` has the values that labels are compared
            with.
    """

    feedback: Feedback
    query: Query | None
    context: str | None
    totals: Totals
    choice: Choice
    outputs: dict[str, bytes]
    wholes: dict[str, Output]

    def whole(self, text: bytes) -> bytes | None:
        """Return all of the output of which this is the value that labels are compared with; None if it is unknown."""
        found = (self.wholes.get(model) for model in self.choice.models if self.outputs.get(model) == text)
        return next((bytes(whole) for whole in found if whole is not None), None)


@dataclass(frozen=True, slots=True)
class Scored:
    """The losses of models and of the answer by a piece of feedback.

    Attributes:
        losses: the losses by model, under the name by which the policy chose it.
        losses_shown: the same by the present links' names, or by version if no link leads to it.
        answer_loss: the loss of the user's answer; None if the feedback does not say.
        reason: the cause of that loss: ``wrong`` for the models' output, or the error code behind another answer.
        no_answer_loss: the loss of what the user gets if no model answers.
        weights: the weights by the same names as ``losses_shown``, if the query's own data picked its models.
        context_loss: what the feedback adds to the loss of its context's best model; None if the policy does not learn
            by the context.
    """

    losses: dict[str, float]
    losses_shown: dict[str, float]
    answer_loss: float | None
    reason: str
    no_answer_loss: float
    weights: dict[str, float]
    context_loss: float | None


def join(
    application: Application, feedback: Feedback, query: Query | None, context: str | None, totals: Totals
) -> Joined:
    """Join feedback with its query or input.

    Raises NotFound if nothing was selected, and there is no model to select, PolicyFailed if the user's own policy
    failed to select, and OutputTooLarge if a model's output is too large to be compared with a label.
    """
    terms = application.terms
    wholes: dict[str, Output] = {}
    if query is not None and query.choice is not None:
        choice = query.choice
    elif terms.models:
        choice = application.select(totals, _judged(application, feedback, query, {}))
    elif application.pipeline is not None:
        raise NotFound(
            f"application {application.name} is a pipeline: send feedback on it with the query_id of a query"
        )
    else:
        raise NotFound(f"application {application.name} has no linked model to learn about")
    if query is not None:
        if feedback.reward is None and not query.is_readable:
            raise OutputTooLarge(TOO_LARGE_TO_COMPARE)
        outputs = query.outputs | {name: terms.judged(output) for name, output in (query.shadow_outputs or {}).items()}
    else:
        outputs = {}
        for model in terms.models + terms.newcomers + terms.shadows:
            target = terms.targets.get(model)
            output = None if target is None or feedback.row is None else target.peek(feedback.row)
            if output is not None and is_readable(output):  # if it is not and is needed, the model is asked
                outputs[model], wholes[model] = terms.judged(output), output
    return Joined(feedback, query, context, totals, choice, outputs, wholes)


def missing_models(application: Application, joined: Joined, now_s: float) -> Sequence[str]:
    """Return the models whose unknown output is needed to score the feedback.

    A reward is for the answer alone, so it needs no output.
    """
    terms, choice, query = application.terms, joined.choice, joined.query
    needed: Sequence[str]
    if joined.feedback.reward is None and terms.selector.policy.feedback == "all":
        # A model that was too full for the query is not asked for its feedback.
        among = None if query is None else query.candidates
        asked = (model for model in terms.models if among is None or model in among)
        needed = (*asked, *(model for model in choice.models if model in terms.newcomers))
    elif query is None:
        needed = choice.models
    else:
        lost = _lost(application, joined, query.missed(now_s))
        needed = [model for model in choice.models if model not in lost]
    return [model for model in needed if model not in joined.outputs]


def learn(application: Application, joined: Joined, now_s: float) -> tuple[Scored, dict[str | None, Keyed]]:
    """Compute what the feedback teaches: losses, and increments by context.

    Raises InvalidArgument if the label or reward cannot be scored, and PolicyFailed if the user's own policy or loss
    failed.
    """
    terms, feedback, query, choice = application.terms, joined.feedback, joined.query, joined.choice
    policy, loss, outcomes = terms.selector.policy, terms.selector.loss, application.outcomes
    arms, confidences = terms.arms if query is None else query.arms, terms.confidences
    is_default = query is not None and query.output is None
    no_answer = default_loss(feedback, loss, terms.judged_default, was_answered=is_default)
    said = None if query is None else query.said
    if query is None:
        # No query waited for these outputs. Only queries that wait show how often outputs are in time.
        combined = _combined(application, joined)
        answer = None if combined is None else combined.output
        losses = score(feedback, loss, choice, joined.outputs, no_answer, answer=answer)
        if combined is not None and confidences is not None:
            said = confidences.say(choice, combined, joined.whole(combined.output))
        missed = {model: outcomes.missed_share(arms.key(model)) for model in losses}
        if not terms.selector.weighs_time and policy.feedback == "selected":
            losses = mixed(losses, missed, no_answer)
        answer_loss, reason = None, _WRONG
        if answer is None or len(choice.models) == 1:
            would_lose = losses.get(choice.models[0])
        else:
            would_lose = loss_of_answer(feedback, loss, answer)
    else:
        missed = dict.fromkeys(query.missed(now_s), 1.0)
        lost = _lost(application, joined, missed)
        known = {model: output for model, output in joined.outputs.items() if model not in lost}
        answer = None if query.output is None else terms.judged(query.output)
        answer_loss = no_answer if answer is None else loss_of_answer(feedback, loss, answer)
        # If models are asked one after another, the user got an earlier model's output instead of a late one's.
        instead = no_answer if not terms.selector.goes_on or answer_loss is None else answer_loss
        losses = score(feedback, loss, choice, known, instead, answer=answer)
        if terms.selector.weighs_time and policy.feedback == "selected":
            # That a model had no time says nothing of how right it is: ``missed`` tells it.
            losses = {model: each for model, each in losses.items() if not _had_no_time(query, model)}
        would_lose, reason = answer_loss, query.reason or _WRONG

    prior = application.contexts.prior()
    is_reward = feedback.reward is not None and len(choice.models) > 1
    judged = _judged(application, feedback, query, joined.outputs)
    states: dict[str | None, Totals] = {None: prior}
    if joined.context is not None:
        states[joined.context] = joined.totals
    picked = _picked(application, joined, is_reward=is_reward)
    lessons: dict[str | None, Keyed] = {}
    for each, totals in states.items():
        is_picked = picked.among_all if each is None else picked.in_context
        lessons[each] = arms.keyed(
            lesson(policy, choice, losses, totals, judged, missed, is_reward=is_reward, is_picked=is_picked)
        )
    weights: Mapping[str, float] = {}
    if picked.is_weighed or (not picked.among_all and _is_weighed_anyway(arms, prior, joined.context)):
        weights = weights_of(choice, terms.shadows if query is not None else (), application.surroundings.random)
        lessons[None] = {**lessons[None], **arms.keyed(weighed(losses, weights, arms.lineup, arms.names, prior))}
    if not prior.observations:
        lessons[None] = {**lessons[None], ("", TELLS_PICKED): 1.0}
    if confidences is not None and confidences.calibrates and said is not None:
        answered = None if query is None else query.confidence
        taught = confidences.taught(feedback, said, arms, answered, is_default=is_default)
        lessons[None] = {**lessons[None], **taught}
    if arms.ramps and would_lose is not None:
        shown = shown_of_newcomers(
            arms,
            terms.arms,
            application.forecasts,
            choice.models,
            would_lose,
            excused=() if query is None else [name for name in missed if application.answering.excuses(query, name)],
            matters=lambda name: not picked.among_all or _matters(application, name, joined.totals, judged),
        )
        lessons[None] = {**lessons[None], **arms.keyed(shown)}
        # By the links' names; or by version for a version without a link, such as a version that a query named.
    names = {name: name if terms.arms.key(name) == arms.key(name) else arms.key(name) for name in losses}
    losses_shown = {names[name]: each for name, each in losses.items()}
    return (
        Scored(
            losses,
            losses_shown,
            answer_loss,
            reason,
            no_answer,
            {names[name]: weight for name, weight in weights.items() if name in names},
            least_loss_increase(joined.totals, prior, losses, terms.models) if picked.is_by_context else None,
        ),
        lessons,
    )


def _matters(application: Application, name: str, totals: Totals, query: JudgedQuery) -> bool:
    """Return whether a newcomer matters to a query: see ``guardrail``. It does if the user's own policy fails."""
    terms, random = application.terms, application.surroundings.random
    try:
        return terms.ramp is None or terms.ramp.matters(
            terms.models, name, lambda among: terms.selector.select(among, totals, query, random)
        )
    except PolicyFailed:
        return True


def _is_weighed_anyway(arms: Arms, totals: Totals, context: str | None) -> bool:
    """Return whether losses are weighed even if the query's own data did not pick its models.

    They are if other losses of the lineup are, and if the application's means are older than the distinction.
    """
    return has_begun(totals, arms.lineup) or (
        context is not None and totals.observations > 0 and not tells_picked(totals)
    )


def _picked(application: Application, joined: Joined, *, is_reward: bool) -> Picked:
    """Return how the models of the feedback's query or input were picked."""
    selector, selection = application.terms.selector, application.snapshot.selection
    goes_by = selector.goes_by
    if selector.policy.feedback == "all":
        goes_by = "nothing"
    elif goes_by == "nothing" and selector.learns and not selection.prior_weight:
        goes_by = "context"  # then each context has learned by itself
    totals = joined.totals
    return how_picked(
        goes_by,
        learns=selector.learns,
        # Nor is it known how likely a model was to be asked in the place of another.
        is_pinned=joined.query is not None
        and (joined.query.pinned is not None or (joined.query.stage > 1 and not selector.goes_on)),
        has_context=joined.context is not None,
        knows_context=totals is not application.contexts.prior() and (totals.own or totals).observations > 0,
        is_partial=is_reward,
    )


def _judged(
    application: Application, feedback: Feedback, query: Query | None, outputs: Mapping[str, bytes]
) -> JudgedQuery:
    terms, label = application.terms, feedback.label
    if query is not None:
        row, features = query.row, query.features
        return JudgedQuery(query.context, features, row, terms.input_type, outputs=outputs, label=label)
    row, features = feedback.row, feedback.features
    if row is not None and features is None:
        features = terms.features_of(row)
    return JudgedQuery(feedback.context, features, row, terms.input_type, outputs=outputs, label=label)


def _lost(application: Application, joined: Joined, missed: Collection[str]) -> Collection[str]:
    """Return the selected models whose output the user did not get, even if it has come since.

    A policy that learns from answers charges these models the loss of what the user got instead. A policy that learns
    from all outputs gets the loss of a late output, and in addition the fact that it was late.
    """
    query = joined.query
    learns_all = joined.feedback.reward is None and application.terms.selector.policy.feedback == "all"
    if query is None or query.choice is None or learns_all:
        return ()
    return query.choice.models if query.output is None else missed


def _had_no_time(query: Query, model: str) -> bool:
    """Return whether a selected model did not answer because it was late, full, or had no replica."""
    if query.choice is None or model not in query.choice.models:
        return False
    is_away = model in query.lost and query.failure is not None and query.failure[0] == "no_replica"
    return is_away or query.is_late(model)


def _combined(application: Application, joined: Joined) -> Combined | None:
    """Return the answer that an input would get; None if there is no output, or it is not needed."""
    terms, feedback, choice = application.terms, joined.feedback, joined.choice
    known = {model: joined.outputs[model] for model in choice.models if model in joined.outputs}
    is_asked_for = feedback.reward is not None or terms.confidences is not None or terms.newcomers
    if not known or not is_asked_for:
        return None
    return terms.selector.combine(choice, known, joined.totals, _judged(application, feedback, None, known))
