"""Errors as the protocol has them: ``error`` is what clients show."""

import msgspec


def error_json(code: str, cause: str) -> bytes:
    return b'{"error":%b,"code":"%b"}' % (msgspec.json.encode(cause), code.encode())
