"""The options of ``python -m clipper.model.runtime``. To read them needs no numpy, which may be missing."""

import argparse
from pathlib import Path
from typing import get_args

from clipper.errors import InvalidArgument
from clipper.model.protocol.messages import MAX_OUTPUTS_BYTES
from clipper.model.runtime.endpoint import Endpoint
from clipper.values.types import Framework


def parse_options() -> argparse.Namespace:
    """Read the command line. The process ends, with code 2, if an option is not valid."""
    parser = argparse.ArgumentParser(prog="python -m clipper.model.runtime", description="Serve one model to Clipper.")
    parser.add_argument("--listen", type=_endpoint, required=True, metavar="unix:PATH|tcp:HOST:PORT")
    parser.add_argument("--model", required=True, metavar="NAME")
    parser.add_argument("--version", required=True)
    parser.add_argument("--artifact", type=Path, required=True, metavar="DIR", help="the unpacked artifact")
    parser.add_argument("--loader", choices=("file", "import"), required=True)
    parser.add_argument("--target", required=True, help="a model file or folder in the artifact, or module:attribute")
    parser.add_argument("--data", metavar="PATH", help="a path in the artifact, the argument of the model's class")
    parser.add_argument("--input-type", metavar="TYPE", help="e.g. float64[784]; default: what the model declares")
    parser.add_argument("--sample-type", metavar="TYPE", help="the type of the sample, for a model that declares none")
    parser.add_argument(
        "--framework", choices=get_args(Framework), help="the framework that loads the model file; default: pickle"
    )
    parser.add_argument("--output", metavar="NAME[,NAME...]", help="the outputs that the model answers")
    parser.add_argument("--gpu", action="store_true", help="compute on the first GPU that it sees")
    parser.add_argument("--precision", choices=("fp16", "bf16"), help="the type of a PyTorch network's weights")
    parser.add_argument(
        "--memory-bytes", type=int, metavar="N", help="the memory that it may use; allocating twice as much fails"
    )
    parser.add_argument(
        "--max-output-bytes", type=int, default=MAX_OUTPUTS_BYTES, metavar="N", help="the bound of one output"
    )
    parser.add_argument("--log-format", choices=("text", "json"), default="text", help="the format of its log")
    parser.add_argument("--replica", metavar="ID", help="the replica's id, for the lines of a log in json")
    return parser.parse_args()


def _endpoint(text: str) -> Endpoint:
    try:
        return Endpoint.parse(text)
    except InvalidArgument as error:
        raise argparse.ArgumentTypeError(str(error)) from None
