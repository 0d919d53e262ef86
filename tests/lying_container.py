"""``python -m tests.lying_container SOCKET ACTIONS``: a container that says what it is told; see ``LyingContainer``."""

import json
import socket
import struct
import sys
import threading
from types import CodeType

WELCOME, PREDICT, RESULTS, ERROR, TYPED_RESULTS = 2, 3, 4, 5, 8
HEADER = struct.Struct("<IBBHQ")
FIELDS = {"protocol": 1, "model": "m", "version": "1", "input_type": "float64[*]", "max_batch": None, "runtime": ""}


def serve(connection: socket.socket, actions: dict[str, CodeType]) -> None:
    def raw(data: bytes) -> None:
        connection.sendall(data)

    def send(kind: int, number: int, body: bytes) -> None:
        raw(HEADER.pack(len(body), kind, 0, 0, number) + body)

    def hang_up() -> None:
        connection.shutdown(socket.SHUT_RDWR)

    scope: dict[str, object] = {"raw": raw, "send": send, "hang_up": hang_up, "waiting": []}
    scope |= {"struct": struct, "welcome": json.dumps(FIELDS).encode()}
    scope |= {"WELCOME": WELCOME, "RESULTS": RESULTS, "ERROR": ERROR, "TYPED_RESULTS": TYPED_RESULTS}
    stream = connection.makefile("rb")
    while len(head := stream.read(HEADER.size)) == HEADER.size:
        size, kind, _, _, number = HEADER.unpack(head)
        body = stream.read(size)
        if kind == PREDICT:
            scope |= {"batch": number, "rows": struct.unpack_from("<I", body)[0], "body": body}
        exec(actions["predict" if kind == PREDICT else "hello"], scope)


def serve_until_broken(connection: socket.socket, actions: dict[str, CodeType]) -> None:
    try:
        serve(connection, actions)
    except OSError as error:
        print("the worker hung up:", error, flush=True)
    connection.close()


def main() -> None:
    path, text = sys.argv[1:]
    actions = {name: compile(code, name, "exec") for name, code in json.loads(text).items()}
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        print("listening on", path, flush=True)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=serve_until_broken, args=(connection, actions), daemon=True).start()


if __name__ == "__main__":
    main()
