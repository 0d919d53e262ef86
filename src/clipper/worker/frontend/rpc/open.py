"""Opens the gRPC front, whose library is an extra."""

from typing import TYPE_CHECKING

from clipper.worker.frontend.http.port import Port

if TYPE_CHECKING:
    from clipper.worker.frontend.rpc.server import RpcServer


def open_rpc_server(port: Port) -> "RpcServer":
    """Raises ImportError where the extra ``grpc`` is not installed."""
    from clipper.worker.frontend.rpc.server import RpcServer

    return RpcServer(port)
