"""The program of a container: loads one model, listens, and serves until SIGTERM."""

import argparse
import logging
import os
import time
from contextlib import ExitStack

from clipper.errors import ContainerFailed
from clipper.model.model import LoadedModel
from clipper.model.protocol.messages import Welcome
from clipper.model.runtime.endpoint import described, listening
from clipper.model.runtime.loading import ModelSource, load
from clipper.model.runtime.loop import Server
from clipper.model.runtime.process import EXIT_NOT_LOADED, prepare, settle

log = logging.getLogger("clipper.runtime")

EXIT_WRONG_USAGE = 2
EXIT_NOT_LISTENING = 4


def run(arguments: argparse.Namespace) -> int:
    """Run the program, and return its exit code."""
    # The token is removed, so that neither the model nor the processes that it starts can read it.
    token = os.environ.pop("CLIPPER_TOKEN", "")
    if arguments.listen.path is None and not token:
        log.critical("a container on tcp needs a token: set CLIPPER_TOKEN")
        return EXIT_WRONG_USAGE
    prepare(arguments.memory_bytes)
    started_s = time.monotonic()
    try:
        model = load(_source(arguments))
    except ContainerFailed as error:
        log.critical("%(error)s", {"error": error}, exc_info=error.__cause__)
        return EXIT_NOT_LOADED
    settle()
    took_s = time.monotonic() - started_s
    log.info(
        "loaded %(model)s:%(version)s in %(duration_ms)d ms",
        {"model": arguments.model, "version": arguments.version, "duration_ms": took_s * 1000},
    )
    log.info("takes %(input_type)s, runs on %(runtime)s", {"input_type": model.input_type, "runtime": model.runtime})
    return _serve(arguments, model, token)


def _serve(arguments: argparse.Namespace, model: LoadedModel, token: str) -> int:
    welcome = Welcome(
        arguments.model,
        arguments.version,
        model.input_type,
        model.max_batch,
        model.runtime,
        model.output_type,
        output_is_declared=model.output_type is not None,
        device=model.device,
        warning=model.warning,
    )
    with ExitStack() as stack:
        try:
            listener = stack.enter_context(listening(arguments.listen))
        except OSError as error:
            log.critical("cannot listen on %(address)s: %(error)s", {"address": arguments.listen, "error": error})
            return EXIT_NOT_LISTENING
        log.info("listening on %(address)s", {"address": described(listener)})
        Server(model, welcome, listener, token, arguments.max_output_bytes).run()
    log.info("stopped")
    return 0


def _source(arguments: argparse.Namespace) -> ModelSource:
    return ModelSource(
        arguments.artifact,
        arguments.loader,
        arguments.target,
        arguments.data,
        arguments.input_type,
        arguments.framework,
        arguments.output,
        arguments.sample_type,
        arguments.gpu,
        arguments.precision,
    )
