"""The client's methods for applications: their models, and how they select among them."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Unpack

from msgspec import UNSET

from clipper.api.reports import Report
from clipper.api.schemas import Application, Contexts, LearnedPolicy, LinkChange
from clipper.client.calls import Calls, ignore, part, query_string
from clipper.client.packaging.models import package_code
from clipper.errors import InvalidArgument
from clipper.settings.application import (
    ApplicationChange,
    ApplicationOptions,
    Cost,
    Link,
    NewApplication,
    configured,
)


class Applications(Calls):
    def create_application(
        self,
        name: str,
        *,
        model: str | Sequence[str] | None = None,
        version: str | None = None,
        shadow: Sequence[str] = (),
        cost: Mapping[str, Cost] | Literal["auto"] | None = None,
        input_type: str | None = None,
        code: str | None = None,
        **settings: Unpack[ApplicationOptions],
    ) -> Application:
        """Create an application. Returns once every worker serves it.

        Args:
            model: the model to link, or several. A link follows the current version, or with ``NAME:VERSION`` stays
                with that version.
            version: the version of a single model, instead of ``NAME:VERSION``.
            shadow: models that are asked and scored, but never answer.
            cost: the cost of asking each model once, by the name of its link, in any unit; ``auto``, for one model or
                for all, is measured in milliseconds of a replica.
            input_type: the type of its queries' inputs; None means the first model's.
            code: SHA-256 of an artifact that the server has, with the code of your own policy or loss; None means the
                Python files of the current folder.
            settings: e.g. ``slo_ms=20, policy="exp3", policy_parameters={"eta": 0.1}``: how it selects among its models
                and learns, who may ask it, and how much. ``settings.application`` has all settings with their defaults,
                and ``clipper app create --help`` explains them. For your own policy or loss, ``module:Class`` or
                ``module:function``, its code is sent.
        """
        if version is not None and not isinstance(model, str):
            raise InvalidArgument(f"version {version!r} goes with one model: with several, write NAME:VERSION")
        new = NewApplication(
            name=name,
            input_type=input_type,
            links=_links(model, version, shadow, cost or {}),
            **self._prepared(settings, code),
        )
        return self._ask(Application, "POST", "/applications", new)

    def check_application(self, new: NewApplication) -> None:
        """Raise what creating the application, or changing it to these settings, would raise. Nothing is changed.

        Models and code that the server does not have yet are no error.
        """
        self._send("POST", "/checks/application", new)

    def applications(self) -> list[Application]:
        return self._ask(list[Application], "GET", "/applications")

    def application(self, name: str) -> Application:
        return self._ask(Application, "GET", f"/applications/{part(name)}")

    def change_application(
        self, name: str, *, code: str | None = None, **settings: Unpack[ApplicationOptions]
    ) -> Application:
        """Change the given settings; no query is lost, and what was learned stays.

        ``code`` and settings are those of ``create_application``. A policy or loss has only the parameters that come
        with it.
        """
        change = ApplicationChange(**self._prepared(settings, code))
        return self._ask(Application, "PATCH", f"/applications/{part(name)}", change)

    def delete_application(self, name: str) -> None:
        """Delete an application and what it has learned."""
        self._management.call("DELETE", f"/applications/{part(name)}")

    def policy(self, application: str, context: str | None = None) -> LearnedPolicy:
        """Return what an application's policy has learned and would do now, over all contexts or in one."""
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
        """Compare an application's models: which is better, how certain that is, and when it will be known.

        The report holds with ``confidence`` however often it is asked for.

        Args:
            confidence: above 0.5, below 1; None means the policy's own if the policy is a test, else 0.95.
            tolerance: by how much the mean losses of equally good models may differ; None means the policy's own if
                the policy is a test, else 0.01.
            context: use the feedback of this context alone.
            by_context: report also on each of the contexts with most feedback.
        """
        asked = {
            "confidence": confidence,
            "tolerance": tolerance,
            "context": context,
            "by_context": "true" if by_context else None,
        }
        return self._ask(Report, "GET", f"/applications/{part(application)}/report{query_string(asked)}")

    def contexts(self, application: str, limit: int = 100) -> Contexts:
        """Return the number of contexts in which an application has learned, and those with the latest feedback."""
        return self._ask(Contexts, "GET", f"/applications/{part(application)}/contexts{query_string({'limit': limit})}")

    def delete_context(self, application: str, context: str) -> None:
        """Forget what was learned in a context, not what all contexts share. Raises NotFound if there is nothing."""
        path = f"/applications/{part(application)}/contexts{query_string({'context': context})}"
        self._management.call("DELETE", path)

    def link(
        self,
        application: str,
        model: str,
        version: str | None = None,
        *,
        shadow: bool = False,
        cost: Cost | None = None,
    ) -> Application:
        """Link a model. The link follows the current version, or stays with ``version``.

        A ``model`` of the form ``NAME:VERSION`` is linked beside other versions of the model, which stay linked.
        A ``shadow`` is asked and scored, but never answers. ``cost`` is the cost of asking it once, in a unit of your
        choice, or ``auto``, which is measured, in milliseconds of a replica.
        """
        return self._ask(Application, "PUT", _link_path(application, model), LinkChange(version, shadow, cost))

    def unlink(self, application: str, model: str) -> Application:
        return self._ask(Application, "DELETE", _link_path(application, model))

    def _prepared(self, options: ApplicationOptions, code: str | None) -> dict[str, Any]:
        """Convert options to the fields of the wire: policy and loss include their parameters. Send the user's code."""
        given: dict[str, Any] = {name: value for name, value in options.items() if value is not UNSET}
        targets = [given[kind] for kind in ("policy", "loss") if ":" in given.get(kind, "")]
        values = configured(given)
        if targets and code is not None:
            return values | {"code": code}
        packed = package_code(targets) if targets else None
        if packed is not None:
            with packed as artifact:
                self._upload(artifact, ignore)
            values["code"] = artifact.digest
        return values


def _links(
    model: str | Sequence[str] | None,
    version: str | None,
    shadow: Sequence[str],
    cost: Mapping[str, Cost] | Literal["auto"],
) -> tuple[Link, ...]:
    names = [model] if isinstance(model, str) else model or ()
    costs = dict.fromkeys((*names, *shadow), cost) if isinstance(cost, str) else cost
    if unknown := costs.keys() - {*names, *shadow}:
        raise InvalidArgument(
            f"cost names {', '.join(sorted(unknown))}: expected names of links: {', '.join(names) or 'none'}"
        )
    links = [_link(name, version, costs.get(name), shadow=False) for name in names]
    return (*links, *(_link(name, None, costs.get(name), shadow=True) for name in shadow))


def _link(text: str, version: str | None, cost: Cost | None, *, shadow: bool) -> Link:
    """Read ``NAME`` or ``NAME:VERSION``; neither part may contain a colon."""
    name, _, pinned = text.partition(":")
    return Link(name, pinned or version, shadow, cost)


def _link_path(application: str, model: str) -> str:
    return f"/applications/{part(application)}/links/{part(model)}"
