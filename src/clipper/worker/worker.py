"""Assembles a query worker: applies snapshots, answers the control channel, starts and drains."""

import asyncio
import contextlib
import gc
import logging
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from random import Random
from time import monotonic
from typing import TYPE_CHECKING

from clipper.base.processes.marks import MARK, kill_marked
from clipper.base.tls.material import TlsMaterial, server_context
from clipper.control.difference import Difference
from clipper.control.identity import IdentityFile
from clipper.control.messages import (
    MAX_RECENT_INPUT_BYTES,
    AnyCommand,
    AnyReply,
    Applied,
    Apply,
    ApplyDifference,
    DescribePolicy,
    Drain,
    Draining,
    GetRecentInput,
    GetStatistics,
    Observe,
    PolicyDescription,
    RecentInput,
    Statistics,
)
from clipper.control.snapshot import Snapshot
from clipper.control.statistics import WorkerStatistics
from clipper.learning.decisions.log import DecisionLog
from clipper.learning.own_code.trial import Trials
from clipper.learning.own_code.watch import ImportNotes, OwnCode
from clipper.learning.stores.open import open_store
from clipper.values.types import OTEL_PREFIX, STORE_VARIABLE, ModelId
from clipper.worker.abstraction.predictor import Predictor
from clipper.worker.config import WorkerConfig, located
from clipper.worker.feedback_router import FeedbackRouter
from clipper.worker.frontend.clients import Clients
from clipper.worker.frontend.http.cross_origin import Origins
from clipper.worker.frontend.http.endpoints import make_endpoints, paths_of
from clipper.worker.frontend.http.listener import Listener, bind_shared
from clipper.worker.frontend.http.other_paths import OtherPaths
from clipper.worker.frontend.http.port import Port
from clipper.worker.frontend.http.server import QueryServer
from clipper.worker.frontend.inference.service import Inference, Serving, StatisticsReader
from clipper.worker.frontend.limits import MAX_CONNECTIONS
from clipper.worker.frontend.readiness import Readiness
from clipper.worker.frontend.rpc.service import Services
from clipper.worker.readings import read
from clipper.worker.selection.application import Application, Surroundings
from clipper.worker.selection.committer import Committer
from clipper.worker.selection.description import describe
from clipper.worker.selection.feedback.join_table import JoinTable
from clipper.worker.selection.learner import MAX_ASKING
from clipper.worker.selection.pipeline.asks import Asks
from clipper.worker.selection.query import QueryIds
from clipper.worker.selection.remembering import Remembering
from clipper.worker.selection.synchronizer import Synchronizer
from clipper.worker.telemetry.exporter import open_exporter
from clipper.worker.telemetry.watch import Watch

if TYPE_CHECKING:
    from clipper.worker.frontend.rpc.server import RpcServer

log = logging.getLogger(__name__)

ALL = GetStatistics()
# Queries leave no reference cycles behind, so the collector finds little. It runs rarely, so that no query is late
# because of it. Young objects are still collected, since a cycle on an error path must not stay for ever, but few at a
# time: a pass over 50,000 objects in cycles held the loop for up to 90 ms.
GC_THRESHOLDS = (10_000, 250, 100)
# After this share of the drain's timeout, waiting clients get the outputs so far, or the default.
ANSWERED_SHARE = 0.9
# How long a thread may go on when another thread waits for the interpreter.
SWITCH_INTERVAL_S = 0.0005


class Worker:
    """A query worker. Its methods run on its event loop."""

    def __init__(
        self,
        config: WorkerConfig,
        on_drain: Callable[[], None],
        max_connections: int = MAX_CONNECTIONS,
        identity: IdentityFile | None = None,
    ) -> None:
        """Assemble a worker. ``on_drain`` is called on a ``Drain``: the process must then call ``drain`` and end."""
        self._config, self._on_drain, self._started_s = config, on_drain, monotonic()
        random = Random()
        self._watch = open_watch(config, random)
        self._tls: TlsMaterial | None = None
        # Whether endpoints ask for keys because all applications do.
        self._all_need_key = False
        self._applications: dict[str, Application] = {}
        self._readiness = Readiness(self._applications.values(), needs_all=config.ready_when == "all")

        # Evaluate inputs: the queues of all versions, and the cache before them.
        self._predictor = Predictor(
            cache_capacity_bytes=config.cache_bytes,
            seed=random.getrandbits(64),
            watch=self._watch,
            node=config.node,
            max_output_bytes=config.max_output_bytes,
        )

        # Take requests: the port, its connections by HTTP/1.1 and gRPC, and the clients that may call.
        self._port = Port(
            max_connections=max_connections,
            give_out=self._predictor.turns.end,
            origins=Origins(config.allowed_origins) if config.allowed_origins else None,
            watch=self._watch,
        )
        self.turn = self._port.turn
        self._predictor.turns.do = self._port.work.do
        self._clients = Clients(index=config.index, now_s=self._port.now_s)
        self._bound: socket.socket | None = None
        self._server = QueryServer(self._port)
        self._rpc = open_rpc_server(self._port) if config.grpc_port else None
        self._rpc_listener: Listener | None = None
        if self._rpc is not None:
            self._rpc_listener = Listener(self._port, self._rpc.make_connection)
            self._server.add(self._rpc_listener)

        # Learn and select: the store, users' own policies under watch, the decision log. The variable is removed, so
        # that processes of users' own policies do not find it.
        given = os.environ.pop(STORE_VARIABLE, "")
        self._store = open_store(config.store or given, Path(config.run).parent if config.run else None)
        run, name = Path(config.run) if config.run else None, f"policy-trial-{config.index}"
        # A sibling of the worker's own mark: a trial ends all processes with its mark, and the worker must not be one.
        self._trials = str(Path(os.environ.get(MARK, "")).parent / name)
        trials = Trials(
            environment={**os.environ, MARK: self._trials},
            scratch=run / "scratch" if run else Path(tempfile.gettempdir()),
            name=name,
            run_as=config.run_as,
        )
        self._own_code = OwnCode(
            on_late=self._follow_code,
            try_out=trials.verdict,
            notes=ImportNotes(run / f"worker-{config.index}.importing" if run else None),
        )
        self._decisions: DecisionLog | None = None
        if config.decisions:
            self._decisions = DecisionLog(Path(config.decisions), f"w{config.instance}", config.decision_log_bytes)
        self._surroundings = Surroundings(
            predictor=self._predictor,
            ids=QueryIds(config.instance, config.restart, random.randrange(QueryIds.MAX_SKIP)),
            random=random,
            store=self._store,
            committer=Committer(self._store, self.turn),
            joins=JoinTable(config.feedback_queries),
            asking=asyncio.Semaphore(MAX_ASKING),
            make=self._own_code.made,
            decisions=self._decisions,
            watch=self._watch,
            applications=self._applications,
        )
        self._predictor.turns.asks = Asks(self._applications, self._port.work.do, self._watch)
        mailbox = self._store.mailbox(config.instance)
        queries = self._store.queries() if config.remember_in_store else None
        remembering = None if queries is None else Remembering(queries, self._surroundings.joins, self._applications)
        self._router = FeedbackRouter(config.instance, self.turn, self._applications, identity, mailbox, remembering)
        self._synchronizer = Synchronizer(
            store=self._store,
            committer=self._surroundings.committer,
            applications=self._applications.values,
            max_contexts=config.max_contexts,
        )
        self._synchronizing: asyncio.Task[None] | None = None

        # Answer calls: the paths of REST, and the methods of gRPC.
        serving = Serving(
            applications=self._applications,
            taker=self._router,
            statistics=StatisticsReader(self._statistics_of, self._port.work),
            port=self._port,
            clients=self._clients,
            readiness=self._readiness,
            max_body_bytes=config.max_body_bytes,
        )
        self._inference = Inference(serving)
        self._services = Services(serving) if self._rpc is not None else None
        self._other_paths = OtherPaths(
            applications=self._applications.values(),
            inference=self._inference,
            work=self._port.work,
            clients=self._clients,
            readiness=self._readiness,
        )

    def begin(self) -> None:
        """Bind the query port, which all workers share. Raises OSError if the port cannot be bound."""
        self._bound = bind_shared(self._config.host, self._config.port)
        # End trials of policies that a killed predecessor of this worker left running.
        with contextlib.suppress(OSError):
            kill_marked(lambda mark: mark.startswith(f"{self._trials}-"))
        self._synchronizing = asyncio.ensure_future(self._synchronizer.run())
        self._router.begin()
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        # By default the store's thread, or the exporter's, could hold the interpreter ten times as long.
        sys.setswitchinterval(SWITCH_INTERVAL_S)

    async def answer(self, command: AnyCommand) -> AnyReply:
        """Carry out a command from the supervisor or from another worker."""
        match command:
            case Apply(snapshot, tls, is_stopping):
                return await self._apply(located(snapshot, self._config.artifacts), tls, is_stopping)
            case ApplyDifference(difference, tls, is_stopping):
                return await self._apply(located(difference, self._config.artifacts), tls, is_stopping)
            case GetStatistics():
                return Statistics(await self.statistics(command))
            case Observe():
                return await self._router.take(command)
            case DescribePolicy(name, context):
                known = self._applications.get(name)
                return PolicyDescription(found=False) if known is None else await describe(known, context)
            case GetRecentInput(model):
                found = self._predictor.recent_input(model)
                if found is None or len(found[1]) > MAX_RECENT_INPUT_BYTES:
                    return RecentInput()
                return RecentInput(str(found[0]), found[1])
            case Drain():
                self._on_drain()
                return Draining()

    async def _apply(
        self, told: Snapshot | Difference, tls: TlsMaterial | None = None, is_stopping: bool = False
    ) -> Applied:
        """Serve by a snapshot, or by the snapshot that results from a difference, unless a newer snapshot is in force.

        Return once replicas have been dialled and drained. A port with TLS accepts no connection before it has ``tls``.
        """
        if isinstance(told, Difference) and told.base > self._predictor.held.generation:
            return self._applied(needs_whole=True)
        # First, since the rest may take seconds: balancers have to know, and a revoked key is refused from now on.
        if told.generation >= self._predictor.held.generation:
            self._readiness.is_stopping = is_stopping
        self._clients.follow(told)
        self._port.forget_heads()
        if tls is not None and tls != self._tls and told.generation >= self._predictor.held.generation:
            self._server.secure(server_context(tls))
            if self._rpc_listener is not None:
                self._rpc_listener.secure(server_context(tls, "h2"))
            self._tls = tls
        new: list[Application] = []
        if told.generation >= self._clients.generation:
            gone = told.gone_applications if isinstance(told, Difference) else None
            await self._own_code.prepare(told.applications, gone)
            # By now, a newer snapshot may be in force, or none if one could not be applied.
            base = told.base if isinstance(told, Difference) else 0
            if base <= self._predictor.held.generation <= told.generation:
                try:
                    new = self._follow(self._predictor.apply(told))
                except BaseException:
                    self._predictor.forget()
                    raise
        await self._accept()
        try:
            async with asyncio.timeout(self._config.settle_timeout_s):
                await asyncio.gather(*(application.load() for application in new))
                await self._predictor.settle()
        except TimeoutError:
            pass  # the reply names what has not settled
        return self._applied()

    def _applied(self, *, needs_whole: bool = False) -> Applied:
        predictor = self._predictor
        return Applied(predictor.held.generation, predictor.unlinked(), predictor.undrained(), needs_whole)

    async def _accept(self) -> None:
        """Accept connections, from the first snapshot on. Before it, this worker would know no application."""
        config, bound = self._config, self._bound
        if bound is None or (config.tls != "off" and self._tls is None):
            return
        self._bound = None
        await self._server.listen(bound)
        if self._rpc_listener is not None:
            try:
                await self._rpc_listener.listen(bind_shared(config.host, config.grpc_port))
            except OSError as error:
                address = f"{config.host}:{config.grpc_port}"
                log.error("cannot listen on %(address)s: %(error)s", {"address": address, "error": error})
                self._on_drain()

    async def statistics(self, asked: GetStatistics = ALL) -> WorkerStatistics:
        """Return the worker's statistics. The loop answers queries meanwhile."""
        found = await read(asked, self._applications, self._predictor)
        learned = self._predictor.learned()
        why_no_policy = {one.name: one.counts.why_no_policy for one in self._applications.values()}
        return WorkerStatistics(
            index=self._config.index,
            pid=os.getpid(),
            generation=self._predictor.held.generation,
            connections=len(self._port.members),
            requests_refused=dict(self._port.refused),
            applications=tuple(found.applications),
            versions=tuple(found.versions),
            replicas=tuple(found.replicas),
            cache=self._predictor.cache.statistics(),
            feedback_window=self._surroundings.joins.statistics(asyncio.get_running_loop().time()),
            decisions=None if self._decisions is None else self._decisions.statistics(),
            telemetry=None if self._watch is None else self._watch.statistics(),
            limits=self._clients.statistics() if asked.marks is None else (),
            grpc_calls=self._rpc.counts.calls if self._rpc is not None else 0,
            grpc_calls_in_flight=self._rpc.counts.in_flight if self._rpc is not None else 0,
            uptime_s=monotonic() - self._started_s,
            store_problem=self._surroundings.committer.problem,
            policy_problems={name: why for name, why in why_no_policy.items() if why} if asked.marks is None else {},
            demanded=self._predictor.demanded(),
            learned=tuple(each for each in learned if each[1]),
            untyped=tuple(id_ for id_, text in learned if not text),
            looked=found.looked,
            gone_applications=tuple(found.gone_applications),
            gone_versions=tuple(found.gone_versions),
        )

    async def drain(self) -> int:
        """Stop accepting and answer open requests. Return the number of requests that got no answer in time."""
        if self._bound is not None:
            self._bound.close()
        timeout_s = self._config.drain_timeout_s
        if self._rpc is not None:
            self._rpc.drain()
        for application in self._applications.values():
            if application.terms.is_waking:  # no snapshot comes any more, and so no sleeping model gets a replica
                application.end_waits()
        ending = asyncio.get_running_loop().call_later(timeout_s * ANSWERED_SHARE, self._end_waits)
        left = await self._server.drain(timeout_s)
        ending.cancel()
        if self._synchronizing is not None:
            self._synchronizing.cancel()
        await self._router.close()
        self._predictor.close()
        await self._store.close()
        if self._decisions is not None:
            await self._decisions.close()
        if self._watch is not None:
            await self._watch.close()
        return left

    def _end_waits(self) -> None:
        for application in self._applications.values():
            application.end_waits()

    def _follow_code(self, name: str) -> None:
        if (application := self._applications.get(name)) is not None:
            application.follow_code()

    def _follow(self, difference: Difference) -> list[Application]:
        """Make the applications match the snapshot in force, which results from a difference. Return the new
        applications.

        This touches only the applications in the difference, and those that link a model in it.
        """
        held, gone = self._predictor.held, difference.gone_applications
        if not difference.base:  # it is whole, and applications may be left from a snapshot that could not be applied
            gone = tuple(name for name in self._applications if name not in held.applications)
        if difference.peers is not None:
            self._router.follow(difference.peers)
        for name in gone:
            if (known := self._applications.pop(name, None)) is not None:
                known.close()
        models = (*(model.name for model in difference.models), *difference.gone_models)
        touched = dict.fromkeys(one.name for one in difference.applications)
        touched |= {name: None for model in models for name in held.linking(model)}
        if difference.needs_key != self._all_need_key:
            self._all_need_key = difference.needs_key
            touched |= dict.fromkeys(held.applications)
        new: list[Application] = []
        followed: list[Application] = []
        for name in touched:
            application = held.applications[name]
            known = self._applications.get(name)
            if known is not None and not known.can_follow(application):
                known.close()
                known = None
            if known is None:
                known = self._applications[name] = Application(application, self._surroundings)
                new.append(known)
            else:
                known.follow(application)
            followed.append(known)
        port, most = self._port, self._config.max_body_bytes
        self._inference.follow(followed, gone)
        endpoints = make_endpoints(followed, self._router, port.work, most, self._clients.guarded)
        port.serve(endpoints, self._other_paths, [path for name in gone for path in paths_of(name)])
        if self._rpc is not None and self._services is not None:
            self._services.follow(followed, gone)
            self._rpc.serve(self._services)
        return new

    async def _statistics_of(self, versions: Collection[ModelId]) -> list[WorkerStatistics]:
        """Return the statistics of these versions from all workers that can be reached."""
        asked = GetStatistics((), tuple(versions), batches=True)
        return [await self.statistics(asked), *await self._router.statistics_of_peers(asked)]


def open_rpc_server(port: Port) -> "RpcServer":
    """Make the gRPC server. Raises ImportError without the extra ``grpc``, which must be loaded before gc.freeze()."""
    from clipper.worker.frontend.rpc.server import RpcServer

    return RpcServer(port)


def open_watch(config: WorkerConfig, random: Random) -> Watch | None:
    """Return the watch for logs and traces, if settings want it. Raises InvalidArgument without the extra ``otel``."""
    settings = config.telemetry
    exporter = open_exporter(settings.otlp_endpoint, f"worker-{config.index}", os.environ)
    # These may hold a receiver's key, and processes of users' own policies inherit the environment.
    for name in [name for name in os.environ if name.startswith(OTEL_PREFIX)]:
        del os.environ[name]
    if exporter is None and not settings.access_log and settings.slow_query_ms is None:
        return None
    return Watch(settings, Path(config.logs), config.index, exporter, random)
