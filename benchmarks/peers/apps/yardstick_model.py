"""The yardstick's model process, which serves the peers' model: ``yardstick_model.py SOCKET``."""

import socket
import struct
import sys

import model
import numpy as np

HEADER = struct.Struct("<IIQ")  # number of the batch, rows, bytes of float64 that follow


def read(connection, size):
    buffer = bytearray(size)
    view = memoryview(buffer)
    while view:
        got = connection.recv_into(view)
        if not got:
            sys.exit()
        view = view[got:]
    return buffer


def main(path):
    predictor = model.load()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)
    connection, _ = listener.accept()
    while True:
        batch, rows, size = HEADER.unpack(read(connection, HEADER.size))
        inputs = np.frombuffer(read(connection, size)).reshape(rows, -1)
        outputs = np.asarray(predictor.predict(inputs), dtype=np.float64).tobytes()
        connection.sendall(HEADER.pack(batch, rows, len(outputs)) + outputs)


if __name__ == "__main__":
    main(sys.argv[1])
