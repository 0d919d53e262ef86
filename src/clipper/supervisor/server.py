"""The life of a server: takes over a home, starts everything and stops it."""

import asyncio
import contextlib
import logging
import os
import random
import signal
import socket
import time
from dataclasses import replace
from functools import partial
from typing import Any

from clipper.base.known_ids import Known
from clipper.base.processes import gpus
from clipper.base.processes.process import ProcessRecord
from clipper.errors import InvalidArgument, RegistryUnavailable
from clipper.learning.stores.open import open_store
from clipper.learning.stores.store import Store
from clipper.settings.home import Place
from clipper.supervisor.assembly import Ground, make_parts
from clipper.supervisor.catalog import Catalog, Numbers
from clipper.supervisor.config import Config
from clipper.supervisor.folders import HomeFolders, check_reach, facilities_of
from clipper.supervisor.history.event_log import NewEvent
from clipper.supervisor.history.events import LOOK_EVERY_S as EVENTS_EVERY_S
from clipper.supervisor.history.events import EventFile, EventKeeper
from clipper.supervisor.history.story import started_event
from clipper.supervisor.keepers import cleaner, disks, ended_tests, output_types, scaler
from clipper.supervisor.keepers.certificates import LOOK_EVERY_S as CERTIFICATES_EVERY_S
from clipper.supervisor.keepers.certificates import Certificates
from clipper.supervisor.keepers.cleaner import remove_old_versions, remove_unused_artifacts
from clipper.supervisor.keepers.ended_tests import EndedTests
from clipper.supervisor.keepers.output_types import OutputTypes
from clipper.supervisor.leadership.step_down import HandOver, start_again, step_down
from clipper.supervisor.leadership.succession import Succession
from clipper.supervisor.management_port import ManagementPort
from clipper.supervisor.managers.logs import LogKeeper
from clipper.supervisor.managers.open import open_cluster_host, open_launchers
from clipper.supervisor.operations.operations import SupervisorOperations
from clipper.supervisor.operations.parts import Parts
from clipper.supervisor.operations.tokens import TokenFile
from clipper.supervisor.operations.views import options_view
from clipper.supervisor.registry.leadership import Leadership
from clipper.supervisor.registry.shared import EPOCHS, REGISTRY_ID_NAME, Holder, SharedRegistry
from clipper.supervisor.registry.sqlite import SqliteRegistry
from clipper.supervisor.registry.store import Registry
from clipper.supervisor.stop_requests import StopRequests
from clipper.supervisor.workers import ports, takeover
from clipper.supervisor.workers.nodes import own_address
from clipper.supervisor.workers.nodes import take_over as take_over_on_nodes
from clipper.supervisor.workers.settings import INSTANCES, store_digest
from clipper.supervisor.workers.takeover import QueryPorts, hold_ports

log = logging.getLogger(__name__)

# After a registry failed just after granting the lease, wait this long before the next request.
START_AGAIN_S = 1.0


class Supervisor:
    """A server, from its start to its stop. ``home`` has to be locked."""

    def __init__(self, config: Config, home: HomeFolders, max_descriptors: int) -> None:
        self._max_descriptors = max_descriptors
        self._config = config
        self._home = home
        self._store_address = config.store_address or f"sqlite:{home.selection_store}"
        self._store_digest = store_digest(self._store_address)
        self._token_file = TokenFile(home.token)
        self._certificates: Certificates | None = None
        self._stopping = StopRequests(config.drain_delay_s)
        self._handing_over = HandOver(config, self._stopping)
        # Set once a cluster can be reached whose processes this server could not adopt before.
        self._starting_again = asyncio.Event()

    async def run(self) -> None:
        """Serve until SIGTERM, SIGINT or ``POST /stop``; then drain and return, with nothing left running.

        A second request to stop ends the drain delay. With a shared registry, wait first until this server leads; if
        another takes over, the process starts again.

        Raises:
            Conflict: a port is taken.
            InvalidArgument: an address is not valid or its extra is not installed; or the certificate cannot be used.
            Unavailable, RegistryUnavailable: the token file or the registry cannot be used, or models cannot run as
                they should.
        """
        # This comes before any process is ended or replaced.
        self._token_file.open()
        if self._config.tls is not None:
            self._certificates = Certificates(self._config.tls, self._home.certificate)
        if self._config.models_user is not None:
            await asyncio.to_thread(check_reach, self._config.models_user, self._home)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.request)
        if self._config.stops_with is not None:
            self._stopping.watch(self._config.stops_with)
        loop.add_signal_handler(signal.SIGUSR1, self._handing_over.request)
        if self._certificates is not None:
            loop.add_signal_handler(signal.SIGHUP, self._certificates.renew)
        else:
            # A service manager sends SIGHUP to reload, and would take a server that ends by it for stopped.
            loop.add_signal_handler(signal.SIGHUP, log.info, "SIGHUP without TLS: there is no certificate to read")
        async with contextlib.AsyncExitStack() as stack:
            # An unavailable store does not prevent the start: it may be available when it is needed.
            store = open_store(self._store_address)
            stack.push_async_callback(store.close)
            listener = stack.enter_context(
                ports.listen(self._config.management_host, self._config.management_port, "--management-port")
            )
            port = ManagementPort(self._config, listener, self._certificates, self._max_descriptors)
            leadership = None
            if self._config.registry is None:
                self._home.id.unlink(missing_ok=True)
                registry: Registry = stack.enter_context(contextlib.closing(SqliteRegistry(self._home.registry)))
            else:
                known = Known(self._home.root / REGISTRY_ID_NAME)
                shared = _open_shared(self._config.registry, Holder(self._home.make_id(), port.address), known)
                registry = stack.enter_context(contextlib.closing(shared))
                succession = Succession(
                    self._config, self._home, port, self._certificates, self._token_file, self._stopping
                )
                leadership = await succession.lead(shared)
                if leadership is None:
                    return
            events = stack.enter_context(contextlib.closing(EventKeeper(EventFile(self._home.events))))
            try:
                parts, queries = await self._assemble(registry, store, events, leadership)
            except RegistryUnavailable as error:
                if leadership is None:
                    raise
                log.error("this server cannot take over yet, and starts again: %(error)s", {"error": error})
                await asyncio.sleep(START_AGAIN_S)
                start_again(self._config)
            for holder in queries.holders:
                stack.enter_context(holder)
            await self._serve(parts, port, queries)

    async def _assemble(
        self, registry: Registry, store: Store, events: EventKeeper, leadership: Leadership | None
    ) -> tuple[Parts, QueryPorts]:
        """Assemble the parts and take over running processes; nothing new is started yet."""
        home, catalog = self._home, Catalog(registry, events.record, self._config.keep_previous)
        facilities = replace(facilities_of(self._config, home), start_again=self._starting_again.set)
        processes = facilities.processes
        if leadership is not None:
            used = {version.spec.manager for version in catalog.versions.values()}
            facilities = replace(
                facilities, cluster=leadership.registry.id, may_act=leadership.may_act, orphans_elsewhere=used
            )
        # Workers compare epochs, so they refuse commands that an earlier leader still sends.
        epoch = registry.reserve(EPOCHS, 1) if leadership is None else leadership.epoch
        credentials, sign = None, None
        if self._config.workers_per_node:
            from clipper.supervisor.workers.credentials import open_credentials

            shared = None if leadership is None else leadership.registry
            credentials, sign = open_credentials(home.control_authority, shared, epoch)
        cluster = open_cluster_host(facilities, sign)
        if self._config.workers_per_node:
            assert cluster is not None, "the command line says what is missing"
            await takeover.end_all_orphans(processes, home, open_launchers(facilities, "here").values())
            records: list[ProcessRecord] = []
            queries = QueryPorts(
                await own_address(cluster) or socket.gethostname(),
                self._config.query_port,
                self._config.wanted_grpc_port or 0,
            )
        else:
            records = processes.recorded()
            queries = await hold_ports(records, processes, self._config, home, self._store_digest)
        settings = takeover.worker_settings(self._config, home, queries.port, self._store_digest, queries.grpc_port)
        # Query ids begin with these numbers. Clippers that share a store or clients must not give out the same ids:
        # feedback would go to the wrong query.
        instances = Numbers(registry, "worker", skip=random.randrange(INSTANCES))
        starts = Numbers(registry, "replica")
        instances.reserve()
        starts.reserve()
        parts = make_parts(
            Ground(
                config=self._config,
                home=home,
                catalog=catalog,
                store=store,
                store_address=self._store_address,
                events=events,
                token_file=self._token_file,
                certificates=self._certificates,
                facilities=facilities,
                cluster=cluster,
                credentials=credentials,
                epoch=epoch,
                instances=instances,
                starts=starts,
                settings=settings,
                leadership=leadership,
            )
        )
        await takeover.take_over_workers(records, parts.workers, settings, instances)
        if cluster is not None:
            # Before containers, since a cluster may come back in between: workers that are taken over without the
            # replicas there would forget these.
            on_nodes = settings if self._config.workers_per_node else None
            await take_over_on_nodes(cluster, parts.workers, on_nodes, instances)
        replicas = await takeover.take_over_containers(catalog, parts.manager, starts)
        asleep = (catalog.versions[id_] for id_, target in catalog.running().items() if target == 0)
        parts.manager.expect({version.id: version.spec for version in asleep})
        takeover.end_the_rest(processes, home, replicas, parts.workers)
        parts.artifacts.remove_unfinished()
        # Until then workers keep their snapshot: our first snapshot must have every replica that theirs has.
        await asyncio.gather(*(replica.settled.wait() for replica in replicas if replica.note.ready))
        return parts, queries

    async def _serve(self, parts: Parts, port: ManagementPort, queries: QueryPorts) -> None:
        config, certificates, leadership = self._config, self._certificates, parts.leadership
        place = Place(
            pid=os.getpid(),
            management_url=port.url,
            query_url=ports.url(queries.host, queries.port, certificates is not None),
            started_at=time.time(),
            grpc_address=ports.address(queries.host, queries.grpc_port) if queries.grpc_port else None,
            started_by=config.options.started_by,
        )
        options = options_view(config.options)
        operations = SupervisorOperations(
            parts, str(self._home.root), place, self._stopping, options, config.ready_when
        )
        keepers = parts.keepers
        keepers.start("bounding logs", LogKeeper(self._home.logs).run)
        keepers.start("forgetting the learned state of deleted applications", parts.forgetter.run)
        for what, run in parts.manager.keepers().items():
            keepers.start(what, run)
        unused = partial(remove_unused_artifacts, parts.catalog, parts.artifacts)
        keepers.repeat("removing artifacts that nobody uses", unused, cleaner.LOOK_EVERY_S)
        old = partial(remove_old_versions, parts.catalog, config.keep_versions, operations.delete_version)
        keepers.repeat("removing old versions", old, cleaner.LOOK_AT_VERSIONS_EVERY_S)
        keepers.repeat("scaling by load", parts.scaler.look, scaler.LOOK_EVERY_S)
        keepers.repeat("waking models that are asked", parts.scaler.wake, scaler.LOOK_AT_SLEEPERS_EVERY_S)
        keepers.start("following newcomers", parts.ramps.run)
        keepers.repeat("keeping events", parts.events.look, EVENTS_EVERY_S)
        keepers.start("taking samples for the series", parts.sampling.run)
        keepers.repeat("watching the disks", parts.disks.look, disks.LOOK_EVERY_S)
        keepers.repeat("watching the GPUs", parts.gpus.look, gpus.LOOK_EVERY_S)
        if parts.nodes is not None:
            keepers.start("following the cluster's nodes", parts.nodes.run)
        tests = EndedTests(parts.catalog, parts.workers, parts.reconciler.story, parts.events)
        keepers.repeat("reporting tests that have ended", tests.look, ended_tests.LOOK_EVERY_S)
        types = OutputTypes(parts.catalog, parts.workers, parts.reconciler.wake)
        keepers.repeat("recording types of outputs", types.look, output_types.LOOK_EVERY_S)
        # Images of versions that were removed while Docker was away.
        keepers.start("removing images that nobody uses", lambda: parts.manager.prune(parts.catalog.artifacts()))
        taken_over = sum(worker.process is not None for worker in parts.workers)
        parts.events.record([started_event(os.getpid(), taken_over, len(parts.manager.slots()))])
        parts.workers.start()
        parts.reconciler.start()
        api, serving = await port.serve(operations, parts.tokens.holder_of)
        if certificates is not None:
            certificates.follow(parts.workers.secure)
            keepers.repeat("looking for new certificates", certificates.look, CERTIFICATES_EVERY_S)
        self._home.write_place(place, config.options)
        if leadership is not None:
            keepers.start(
                "telling standbys that queries are answered", partial(leadership.tell_when_ready, operations.problems)
            )
        log.info(
            "management on %(management_url)s, queries on %(query_url)s, gRPC on %(grpc_address)s",
            {
                "management_url": place.management_url,
                "query_url": place.query_url,
                "grpc_address": place.grpc_address or "no port",
            },
        )

        def announce_stop() -> None:
            log.info(
                "stopping in %(wait_s)g s: not ready, while queries are still answered",
                {"wait_s": config.drain_delay_s},
            )
            parts.workers.announce_stop()

        stop = asyncio.create_task(self._stopping.wait(announce_stop))
        again = asyncio.create_task(self._starting_again.wait())
        ends: list[asyncio.Task[Any]] = [serving, stop, again, *([leadership.lost] if leadership is not None else [])]
        handing_over = asyncio.create_task(self._handing_over.wait())
        await asyncio.wait([*ends, handing_over], return_when=asyncio.FIRST_COMPLETED)
        if handing_over.done():
            api.should_exit = True
            await serving
            await self._handing_over.leave(parts)
        if not self._stopping.is_requested:
            if leadership is not None and leadership.lost.done():
                await step_down(parts, config, leadership.lost.result())
            if again.done():
                await step_down(parts, config, "it can reach Ray now, and takes over what runs there")
        log.info("stopping")
        parts.events.record([NewEvent("server", "server", "the server is stopped")])
        api.should_exit = True
        await serving
        await self._end(parts)
        # The keepers' use of the store and the registry has to end before these are closed.
        await keepers.stop()
        if leadership is not None:
            await leadership.release()

    async def _end(self, parts: Parts) -> None:
        """End everything. Workers first: their open queries need the containers."""
        parts.reconciler.stop()
        has_standby = parts.leadership is not None and parts.leadership.standby is not None
        if parts.nodes is not None and has_standby:
            # The next leader adopts them, as it does containers on Ray.
            await parts.workers.let_go()
        else:
            await parts.workers.drain()
        if parts.nodes is not None:
            parts.nodes.close()
        if parts.leadership is not None and parts.leadership.standby is not None:
            # Without the lease, processes on Ray are left alone, for the next leader.
            await parts.leadership.release()
        await parts.manager.stop_all()
        self._home.remove_stale(set(), set())
        self._home.remove_sockets_folder()
        self._home.place.unlink(missing_ok=True)
        log.info("stopped")


def _open_shared(address: str, holder: Holder, known: Known) -> SharedRegistry:
    """Open the registry of an address that ``read_registry`` accepts. Nothing is asked of it yet."""
    try:
        from clipper.supervisor.registry.redis import RedisRegistry

        return RedisRegistry(address, holder, known=known)
    except ImportError as error:
        raise InvalidArgument(
            "a registry in Redis needs the redis package: pip install 'clipper-serving[redis]'"
        ) from error
    except ValueError as error:
        raise InvalidArgument(f"the registry's address is malformed: {error}; expected redis://HOST:PORT/DB") from error
