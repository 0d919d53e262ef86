"""A TCP proxy that can be cut, as a network is: what is sent is dropped, and no connection is reset."""

import contextlib
import selectors
import socket
import threading
from types import TracebackType

# One read takes this much; more waits in the kernel.
_READ_BYTES = 65536


class TcpProxy:
    """Passes connections to a port of this machine on, until ``cut`` and again after ``mend``."""

    def __init__(self, target_port: int) -> None:
        self._target = ("127.0.0.1", target_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._is_cut = threading.Event()
        self._wake, self._waker = socket.socketpair()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "TcpProxy":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waker.close()
        self._thread.join()
        self._wake.close()
        self._listener.close()

    def cut(self) -> None:
        self._is_cut.set()

    def mend(self) -> None:
        self._is_cut.clear()

    def _run(self) -> None:
        peers: dict[socket.socket, socket.socket] = {}
        with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
            selector.register(self._wake, selectors.EVENT_READ)
            selector.register(self._listener, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    found = key.fileobj
                    assert isinstance(found, socket.socket)
                    if found is self._wake:
                        return
                    if found is self._listener:
                        one = stack.enter_context(self._listener.accept()[0])
                        try:
                            other = stack.enter_context(socket.create_connection(self._target, 1))
                        except OSError:
                            one.close()
                            continue
                        peers |= {one: other, other: one}
                        selector.register(one, selectors.EVENT_READ)
                        selector.register(other, selectors.EVENT_READ)
                        continue
                    self._pass_on(found, peers, selector)

    def _pass_on(
        self, one: socket.socket, peers: dict[socket.socket, socket.socket], selector: selectors.BaseSelector
    ) -> None:
        try:
            data = one.recv(_READ_BYTES)
            if data and self._is_cut.is_set():
                return  # lost on its way
            if data:
                peers[one].sendall(data)
                return
        except OSError:
            pass
        for end in (one, peers.pop(one)):
            peers.pop(end, None)
            with contextlib.suppress(KeyError):
                selector.unregister(end)
            end.close()
