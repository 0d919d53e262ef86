"""Errors in the protocol's form: clients show the field ``error``."""

import msgspec


def error_json(code: str, cause: str) -> bytes:
    return b'{"error":%b,"code":"%b"}' % (msgspec.json.encode(cause), code.encode())
