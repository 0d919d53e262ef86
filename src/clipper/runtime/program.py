"""The program of a container: loads one model, listens, and serves until SIGTERM."""

import argparse
import logging
import os
import sys
import time
import traceback
from contextlib import ExitStack
from pathlib import Path
from typing import get_args

from clipper.containers.protocol.messages import Welcome
from clipper.errors import ContainerFailed, InvalidArgument
from clipper.runtime.endpoint import Endpoint, described, listening
from clipper.runtime.loading import ModelSource, load
from clipper.runtime.loop import Server
from clipper.runtime.model import LoadedModel
from clipper.runtime.process import EXIT_NOT_LOADED, prepare, settle
from clipper.types import Framework

log = logging.getLogger("clipper.runtime")

EXIT_NOT_LISTENING = 4


def main() -> int:
    parser = _parser()
    arguments = parser.parse_args()
    # Removed, so that neither the model nor processes that it starts can read it.
    token = os.environ.pop("CLIPPER_TOKEN", "")
    if arguments.listen.is_tcp and not token:
        parser.error("a container on tcp needs a token: set CLIPPER_TOKEN")
    prepare(arguments.memory_bytes)
    started_s = time.monotonic()
    try:
        model = load(_source(arguments))
    except ContainerFailed as error:
        if error.__cause__ is not None:
            traceback.print_exception(type(error.__cause__), error.__cause__, error.__cause__.__traceback__)
        return _fail(EXIT_NOT_LOADED, str(error))
    settle()
    took_s = time.monotonic() - started_s
    log.info("loaded %s:%s in %.2f s", arguments.model, arguments.version, took_s)
    log.info("takes %s, runs on %s", model.input_type, model.runtime)
    return _serve(arguments, model, token)


def _serve(arguments: argparse.Namespace, model: LoadedModel, token: str) -> int:
    welcome = Welcome(
        arguments.model, arguments.version, model.input_type, model.max_batch, model.runtime, model.output_type
    )
    with ExitStack() as stack:
        try:
            listener = stack.enter_context(listening(arguments.listen))
        except OSError as error:
            return _fail(EXIT_NOT_LISTENING, f"cannot listen on {arguments.listen}: {error}")
        log.info("listening on %s", described(listener))
        Server(model, welcome, listener, token).run()
    log.info("stopped")
    return 0


def _fail(code: int, cause: str) -> int:
    sys.stderr.write(f"clipper: {cause}\n")
    return code


def _source(arguments: argparse.Namespace) -> ModelSource:
    return ModelSource(
        arguments.artifact,
        arguments.loader,
        arguments.target,
        arguments.data,
        arguments.input_type,
        arguments.framework,
        arguments.output,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m clipper.runtime", description="Serve one model to Clipper.")
    parser.add_argument("--listen", type=_endpoint, required=True, metavar="unix:PATH|tcp:HOST:PORT")
    parser.add_argument("--model", required=True, metavar="NAME")
    parser.add_argument("--version", required=True)
    parser.add_argument("--artifact", type=Path, required=True, metavar="DIR", help="the unpacked artifact")
    parser.add_argument("--loader", choices=("file", "import"), required=True)
    parser.add_argument("--target", required=True, help="a model file or folder in the artifact, or module:attribute")
    parser.add_argument("--data", metavar="PATH", help="in the artifact; the argument of the model's class")
    parser.add_argument("--input-type", metavar="TYPE", help="e.g. float64[784]; default: what the model declares")
    parser.add_argument("--framework", choices=get_args(Framework), help="what loads a model file; default: pickle")
    parser.add_argument("--output", metavar="labels|probabilities|NAME[,NAME...]", help="what the model answers")
    parser.add_argument(
        "--memory-bytes", type=int, metavar="N", help="the memory that it may use; allocating twice as much fails"
    )
    return parser


def _endpoint(text: str) -> Endpoint:
    try:
        return Endpoint.parse(text)
    except InvalidArgument as error:
        raise argparse.ArgumentTypeError(str(error)) from None
