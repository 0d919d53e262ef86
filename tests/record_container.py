"""A container for records: answers each one with its values as JSON. Run as ``python -m tests.record_container SOCKET
MODEL TYPE PROTOCOL``."""

import asyncio
import json
import sys
from typing import Any

import numpy as np

from clipper.model.protocol.columns import decode_predict_columns
from clipper.model.protocol.frames import Kind, Splitter
from clipper.model.protocol.messages import Welcome, encode_pong, encode_results, encode_welcome
from clipper.values.columns import Column
from clipper.values.records import parse_type
from clipper.values.types import DType


def values_of(column: Column) -> list[Any]:
    """Return the values of a column as JSON has them; None for a missing one."""
    found: list[Any] = []
    start = 0
    for row in range(column.rows):
        size = column.type.row_bytes if column.lengths is None else column.lengths[row]
        data = bytes(column.payload[start : start + (size or 0)])
        start += size or 0
        if column.present is not None and not column.present[row // 8] >> row % 8 & 1:
            found.append(None)
        elif column.dtype is DType.STRING:
            found.append(data.decode())
        elif column.dtype is DType.BYTES:
            found.append(data.hex())
        else:
            skipped = 4 * column.dimensions
            shape = [length or -1 for length in column.type.shape]
            if skipped:
                shape = np.frombuffer(data[:skipped], "<u4").tolist()
            found.append(np.frombuffer(data[skipped:], column.dtype.numpy_code).reshape(shape).tolist())
    return found


async def main(path: str, name: str, of_type_text: str, spoken: int) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        splitter = Splitter()
        while data := await reader.read(1 << 20):
            for kind, frame_id, body in splitter.feed(data):
                if kind == Kind.HELLO:
                    writer.write(
                        encode_welcome(Welcome(name, "1", parse_type(of_type_text), None, "test", None, spoken))
                    )
                elif kind == Kind.PING:
                    writer.write(encode_pong(frame_id, 0))
                else:
                    batch = decode_predict_columns(body)
                    columns = {column.name: values_of(column) for column in batch.columns}
                    rows = [dict(zip(columns, row)) for row in zip(*columns.values())]
                    writer.write(encode_results(frame_id, len(rows), "\n".join(map(json.dumps, rows)).encode()))

    async with await asyncio.start_unix_server(serve, path):
        print("listening on", path, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    socket, model, of_type, protocol = sys.argv[1:]
    asyncio.run(main(socket, model, of_type, int(protocol)))
