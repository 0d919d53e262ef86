"""What an operator can do with applications."""

from typing import Any

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from clipper.errors import Conflict, InvalidArgument, NotFound, Unavailable
from clipper.management.schemas import Application, ApplicationChange, LinkChange, NewApplication
from clipper.registry.records import ApplicationRecord
from clipper.registry.store import DeleteApplication, Put
from clipper.snapshot import Link
from clipper.supervisor import rules
from clipper.supervisor.parts import Parts
from clipper.supervisor.views import application_view
from clipper.types import InputType, check_name

# The worker's policies, by name.
POLICIES = ("single",)

MAX_SLO_MS = 600_000.0
# A query asks at most all of them.
MAX_LINKS = 64
# Workers take a snapshot in milliseconds, or within their settle timeout where a replica does not answer.
REACH_TIMEOUT_S = 15.0


class ApplicationOperations:
    """Each change returns once every worker serves it."""

    def __init__(self, parts: Parts) -> None:
        self._catalog = parts.catalog
        self._reconciler = parts.reconciler

    async def list_applications(self) -> list[Application]:
        return [application_view(record) for _, record in sorted(self._catalog.applications.items())]

    async def get_application(self, name: str) -> Application:
        return application_view(self._catalog.application(name))

    async def create_application(self, new: NewApplication) -> Application:
        check_name("application", new.name)
        if new.name in self._catalog.applications:
            raise Conflict(f"application {new.name!r} exists already: change it, or delete it first")
        if new.policy not in POLICIES:
            raise InvalidArgument(f"policy {new.policy!r} is not known: expected one of {', '.join(POLICIES)}")
        _check_slo(new.slo_ms)
        record = ApplicationRecord(
            new.name, self._input_type(new), new.slo_ms, _default_text(new.default_output), new.policy, new.links
        )
        return await self._store(record)

    async def change_application(self, name: str, change: ApplicationChange) -> Application:
        record = self._catalog.application(name)
        if change.slo_ms is not UNSET:
            _check_slo(change.slo_ms)
            record = replace(record, slo_ms=change.slo_ms)
        if change.default_output is not UNSET:
            record = replace(record, default_output=_default_text(change.default_output))
        return await self._store(record)

    async def delete_application(self, name: str) -> None:
        self._catalog.application(name)
        self._catalog.commit(DeleteApplication(name))
        await self._reach_workers(f"that application {name!r} is deleted")

    async def link(self, application: str, model: str, change: LinkChange) -> Application:
        """In place of the link to the same model, if there is one."""
        record = self._catalog.application(application)
        new = Link(model, change.version)
        if any(link.model == model for link in record.links):
            links = tuple(new if link.model == model else link for link in record.links)
        else:
            links = (*record.links, new)
        return await self._store(replace(record, links=links))

    async def unlink(self, application: str, model: str) -> Application:
        record = self._catalog.application(application)
        links = tuple(link for link in record.links if link.model != model)
        if links == record.links:
            raise NotFound(f"application {application!r} does not link model {model!r}")
        return await self._store(replace(record, links=links))

    async def _store(self, record: ApplicationRecord) -> Application:
        self._check_links(record)
        self._catalog.commit(Put(record))
        await self._reach_workers(f"application {record.name!r}")
        return application_view(record)

    async def _reach_workers(self, what: str) -> None:
        if not await self._reconciler.reach_workers(REACH_TIMEOUT_S):
            raise Unavailable(
                f"{what} is stored, but a worker did not take it within {REACH_TIMEOUT_S:g} s: "
                "it will as soon as it can; see clipper status"
            )

    def _check_links(self, record: ApplicationRecord) -> None:
        models = [link.model for link in record.links]
        if len(set(models)) != len(models) or len(models) > MAX_LINKS:
            raise InvalidArgument(f"links {models} are not valid: expected at most {MAX_LINKS}, each of another model")
        for link in record.links:
            model = self._catalog.model(link.model)
            version = link.version or model.current
            if version is not None:
                rules.check_fits(record, self._catalog.version(link.model, version))

    def _input_type(self, new: NewApplication) -> str:
        if new.input_type is not None:
            return str(InputType.parse(new.input_type))
        if not new.links:
            raise InvalidArgument("an application that links no model yet needs its input_type, e.g. float64[784]")
        link = new.links[0]
        version = link.version or self._catalog.model(link.model).current
        known = self._catalog.version(link.model, version).input_type if version else None
        if known is None:
            raise Conflict(
                f"model {link.model!r} has not come up yet, so its input type is not known: "
                "wait until it is ready, or declare the application's input_type"
            )
        return known


def _check_slo(slo_ms: float) -> None:
    if not 0 < slo_ms <= MAX_SLO_MS:
        raise InvalidArgument(f"slo_ms {slo_ms:g} is out of range: expected over 0 and at most {MAX_SLO_MS:g}")


def _default_text(default: Any) -> str | None:
    return None if default is UNSET else msgspec.json.encode(default).decode()
