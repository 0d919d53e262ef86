"""The client's part for applications: their models, and how they select among these."""

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import UNSET, UnsetType

from clipper.client.calls import Calls, ignore, part, query_string
from clipper.control.snapshot import ConfidenceFrom, Features, Link, Selection, Wait
from clipper.errors import InvalidArgument
from clipper.management.reports import Report
from clipper.management.schemas import (
    Application,
    ApplicationChange,
    Configured,
    Contexts,
    LearnedPolicy,
    LinkChange,
    NewApplication,
)
from clipper.packaging import package_code

Parameters = Mapping[str, Any]

_DEFAULTS = Selection()


class Applications(Calls):
    """A server's applications."""

    def create_application(
        self,
        name: str,
        *,
        model: str | Sequence[str] | None = None,
        version: str | None = None,
        shadow: Sequence[str] = (),
        slo_ms: float = 100.0,
        default_output: Any | UnsetType = UNSET,
        input_type: str | None = None,
        policy: str = _DEFAULTS.policy,
        policy_parameters: Parameters | None = None,
        loss: str = _DEFAULTS.loss,
        loss_parameters: Parameters | None = None,
        half_life: int | UnsetType | None = UNSET,
        prior_weight: float = _DEFAULTS.prior_weight,
        inherit: float = _DEFAULTS.inherit,
        ramp: float | None = _DEFAULTS.ramp,
        max_loss_increase: float | None = _DEFAULTS.max_loss_increase,
        wait: Wait = _DEFAULTS.wait,
        confidence_threshold: float | None = _DEFAULTS.confidence_threshold,
        confidence_from: ConfidenceFrom = _DEFAULTS.confidence_from,
        calibrate: bool = _DEFAULTS.calibrate,
        feedback_ttl_s: float = _DEFAULTS.feedback_ttl_s,
        log_decisions: float = _DEFAULTS.log_decisions,
        features: Features = None,
        cost: Mapping[str, float] | None = None,
        cost_weight: float = _DEFAULTS.cost_weight,
        require_key: bool = False,
        max_in_flight: int | None = None,
        max_per_second: float | None = None,
    ) -> Application:
        """Create an application. Returns once every worker serves it.

        Args:
            model: the model to link, or several. Each follows its current version, or stays with one: ``NAME:VERSION``.
            version: the same as ``NAME:VERSION``, of a single model.
            shadow: models that are asked and scored, but never answer.
            slo_ms: within how many milliseconds a query is answered.
            default_output: answered when no model has; any JSON, also None. Left out: such queries are errors.
            input_type: of its queries; the first model's if None.
            policy: which models are asked, and what is made of their answers: a name, or ``module:Class`` of your own.
                Of your own, the current folder's Python files are sent.
            policy_parameters: those that are not to have their defaults.
            loss: how wrong an answer is, given the right one: a name, or ``module:function`` of your own.
            half_life: after how many observations one counts half; None is never; left out, as suits the policy.
            prior_weight: for how many observations the application's own state counts in a new context's.
            inherit: how much of what was learned of a version counts for the next one, from 0 to 1.
            ramp: the share of the queries that a new link or version gets at most, until feedback has told enough of
                it, if the policy learns; None is no ramp.
            max_loss_increase: a new one whose answers lose by so much more than the others is stopped, or its model
                rolled back; None is never.
            wait: for which of several models an answer waits: ``all``, those ``expected`` in time, or until it is
                ``decided``.
            confidence_threshold: an answer with less confidence is replaced by the default; None is no threshold.
            confidence_from: what an answer's confidence is: the share of the models that agree (``agreement``), or the
                ``probabilities`` that the answer states, where it does.
            calibrate: make it how often answers of such a confidence are right, by feedback.
            feedback_ttl_s: for how long feedback on a query may come.
            log_decisions: the share of its queries that is written to the decision log.
            features: how many numbers each query brings for its policy, at most 64; ``"input"``: its input is them.
            cost: of asking each of its models once, by the name that it is linked by, in a unit of yours.
            cost_weight: how much loss a cost of 1 is worth to policies that learn.
            require_key: answer only who shows a key.
            max_in_flight: how many of its queries may be in flight at once, over all clients and workers.
            max_per_second: how many queries a second it takes of all clients.
        """
        if version is not None and not isinstance(model, str):
            raise InvalidArgument(f"version {version!r} goes with one model: of several, write NAME:VERSION")
        new = NewApplication(
            name=name,
            slo_ms=slo_ms,
            input_type=input_type,
            default_output=default_output,
            policy=Configured(policy, dict(policy_parameters or {})),
            links=_links(model, version, shadow, cost or {}),
            loss=Configured(loss, dict(loss_parameters or {})),
            half_life=half_life,
            prior_weight=prior_weight,
            inherit=inherit,
            ramp=ramp,
            max_loss_increase=max_loss_increase,
            wait=wait,
            confidence_threshold=confidence_threshold,
            confidence_from=confidence_from,
            calibrate=calibrate,
            feedback_ttl_s=feedback_ttl_s,
            log_decisions=log_decisions,
            features=features,
            cost_weight=cost_weight,
            code=self._send_code(policy, loss),
            require_key=require_key,
            max_in_flight=max_in_flight,
            max_per_second=max_per_second,
        )
        return self._ask(Application, "POST", "/applications", new)

    def applications(self) -> list[Application]:
        return self._ask(list[Application], "GET", "/applications")

    def application(self, name: str) -> Application:
        return self._ask(Application, "GET", f"/applications/{part(name)}")

    def change_application(
        self,
        name: str,
        *,
        slo_ms: float | UnsetType = UNSET,
        default_output: Any | UnsetType = UNSET,
        policy: str | UnsetType = UNSET,
        policy_parameters: Parameters | None = None,
        loss: str | UnsetType = UNSET,
        loss_parameters: Parameters | None = None,
        half_life: int | UnsetType | None = UNSET,
        prior_weight: float | UnsetType = UNSET,
        inherit: float | UnsetType = UNSET,
        ramp: float | UnsetType | None = UNSET,
        max_loss_increase: float | UnsetType | None = UNSET,
        wait: Wait | UnsetType = UNSET,
        confidence_threshold: float | UnsetType | None = UNSET,
        confidence_from: ConfidenceFrom | UnsetType = UNSET,
        calibrate: bool | UnsetType = UNSET,
        feedback_ttl_s: float | UnsetType = UNSET,
        log_decisions: float | UnsetType = UNSET,
        features: Features | UnsetType = UNSET,
        cost_weight: float | UnsetType = UNSET,
        require_key: bool | UnsetType = UNSET,
        max_in_flight: int | UnsetType | None = UNSET,
        max_per_second: float | UnsetType | None = UNSET,
    ) -> Application:
        """Change what is given, as ``create_application`` takes it; no query is lost, and what was learned stays.

        A policy or loss that is given has the parameters that are given with it, and otherwise its defaults.
        """
        code = self._send_code(policy, loss)
        change = ApplicationChange(
            slo_ms=slo_ms,
            default_output=default_output,
            policy=_configured("policy", policy, policy_parameters),
            loss=_configured("loss", loss, loss_parameters),
            half_life=half_life,
            prior_weight=prior_weight,
            inherit=inherit,
            ramp=ramp,
            max_loss_increase=max_loss_increase,
            wait=wait,
            confidence_threshold=confidence_threshold,
            confidence_from=confidence_from,
            calibrate=calibrate,
            feedback_ttl_s=feedback_ttl_s,
            log_decisions=log_decisions,
            features=features,
            cost_weight=cost_weight,
            code=UNSET if code is None else code,
            require_key=require_key,
            max_in_flight=max_in_flight,
            max_per_second=max_per_second,
        )
        return self._ask(Application, "PATCH", f"/applications/{part(name)}", change)

    def delete_application(self, name: str) -> None:
        """What it has learned is forgotten."""
        self._management.call("DELETE", f"/applications/{part(name)}")

    def policy(self, application: str, context: str | None = None) -> LearnedPolicy:
        """What an application's policy has learned and would do now, over all or in one context."""
        path = f"/applications/{part(application)}/policy{query_string({'context': context})}"
        return self._ask(LearnedPolicy, "GET", path)

    def report(
        self,
        application: str,
        *,
        confidence: float | None = None,
        tolerance: float | None = None,
        context: str | None = None,
        by_context: bool = False,
    ) -> Report:
        """An application's models beside each other: who is better, how sure that is, and when it will be known.

        It holds with ``confidence`` however often it is asked for.

        Args:
            confidence: above 0.5, below 1; the policy's own if that is a test, else 0.95.
            tolerance: what mean losses may differ by for models to be as good; the policy's own, else 0.01.
            context: by the feedback of this context alone.
            by_context: also by that of each of the contexts with most feedback.
        """
        asked = {
            "confidence": confidence,
            "tolerance": tolerance,
            "context": context,
            "by_context": "true" if by_context else None,
        }
        return self._ask(Report, "GET", f"/applications/{part(application)}/report{query_string(asked)}")

    def contexts(self, application: str, limit: int = 100) -> Contexts:
        """How many contexts an application has learned in, and some of them: first those with the latest feedback."""
        return self._ask(Contexts, "GET", f"/applications/{part(application)}/contexts{query_string({'limit': limit})}")

    def delete_context(self, application: str, context: str) -> None:
        """Forget what was learned in one context. What it taught all stays.

        Raises:
            NotFound: nothing was learned in it.
        """
        path = f"/applications/{part(application)}/contexts{query_string({'context': context})}"
        self._management.call("DELETE", path)

    def link(
        self,
        application: str,
        model: str,
        version: str | None = None,
        *,
        shadow: bool = False,
        cost: float | None = None,
    ) -> Application:
        """Link a model: its current version, whichever that is, or ``version`` for good.

        A ``model`` of the form ``NAME:VERSION`` is linked beside other versions of it, which stay.
        A ``shadow`` is asked and scored, but never answers. ``cost`` is that of asking it once, in a unit of yours.
        """
        return self._ask(Application, "PUT", _link_path(application, model), LinkChange(version, shadow, cost))

    def unlink(self, application: str, model: str) -> Application:
        return self._ask(Application, "DELETE", _link_path(application, model))

    def _send_code(self, *names: str | UnsetType) -> str | None:
        """Send the current folder's code if one of these is of it; return its digest."""
        targets = [name for name in names if isinstance(name, str) and ":" in name]
        packed = package_code(targets) if targets else None
        if packed is None:
            return None
        with packed as artifact:
            self._upload(artifact, ignore)
        return artifact.digest


def _configured(kind: str, name: str | UnsetType, parameters: Parameters | None) -> Configured | UnsetType:
    if isinstance(name, str):
        return Configured(name, dict(parameters or {}))
    if parameters is not None:
        raise InvalidArgument(f"{kind}_parameters go with a {kind}: name it, also if it stays the same")
    return UNSET


def _links(
    model: str | Sequence[str] | None, version: str | None, shadow: Sequence[str], costs: Mapping[str, float]
) -> tuple[Link, ...]:
    names = [model] if isinstance(model, str) else model or ()
    if unknown := costs.keys() - {*names, *shadow}:
        raise InvalidArgument(
            f"cost names {', '.join(sorted(unknown))}: expected models as they are linked: {', '.join(names) or 'none'}"
        )
    links = [_link(name, version, costs.get(name), shadow=False) for name in names]
    return (*links, *(_link(name, None, costs.get(name), shadow=True) for name in shadow))


def _link(text: str, version: str | None, cost: float | None, *, shadow: bool) -> Link:
    """``NAME`` or ``NAME:VERSION``; neither may hold a colon."""
    name, _, pinned = text.partition(":")
    return Link(name, pinned or version, shadow, cost)


def _link_path(application: str, model: str) -> str:
    return f"/applications/{part(application)}/links/{part(model)}"
