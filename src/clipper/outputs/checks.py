"""Checks that what a container answers is JSON."""

import msgspec

# This check covers the syntax but accepts any bytes inside a string. It also rejects nesting that is too deep for
# msgspec: such nesting would be too deep for most readers, too.
check_json = msgspec.json.Decoder(msgspec.Raw).decode
NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def check_utf8(outputs: bytes) -> None:
    """
    Raises:
        UnicodeDecodeError: they are not.
    """
    if not outputs.isascii():
        outputs.decode()
