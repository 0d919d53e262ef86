"""Heads and bodies whose end two readers may see in different places, by which one request is smuggled into another."""

BODY = b'{"input":[1,2]}'
_CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)
_LENGTH = b"Content-Length: %d\r\n" % len(BODY)
_CHUNKED = b"Transfer-Encoding: chunked\r\n"

# By name: everything that follows the first two lines of a request.
DOUBTFUL = {
    "length and chunks": _LENGTH + _CHUNKED + b"\r\n" + _CHUNKS,
    "chunks and length": _CHUNKED + b"Content-Length: 4\r\n\r\n" + _CHUNKS,
    "two lengths": _LENGTH + b"Content-Length: 3\r\n\r\n" + BODY,
    "a list of lengths": b"Content-Length: 15, 15\r\n\r\n" + BODY,
    "a length with a sign": b"Content-Length: +15\r\n\r\n" + BODY,
    "a length below 0": b"Content-Length: -1\r\n\r\n" + BODY,
    "a hexadecimal length": b"Content-Length: 0xf\r\n\r\n" + BODY,
    "a length over 64 bits": b"Content-Length: 18446744073709551631\r\n\r\n" + BODY,
    "a length of two numbers": b"Content-Length: 1 5\r\n\r\n" + BODY,
    "a space before the colon": b"Content-Length : 15\r\n\r\n" + BODY,
    "an encoding with a space before the colon": b"Transfer-Encoding : chunked\r\n" + _LENGTH + b"\r\n" + BODY,
    "an unknown encoding": b"Transfer-Encoding: xchunked\r\n" + _LENGTH + b"\r\n" + BODY,
    "an encoding that is not the last": b"Transfer-Encoding: chunked, identity\r\n\r\n" + _CHUNKS,
    "two encodings": _CHUNKED + b"Transfer-Encoding: identity\r\n\r\n" + _CHUNKS,
    "a control character in the encoding": b"Transfer-Encoding: \x0bchunked\r\n\r\n" + _CHUNKS,
    "a quoted encoding": b'Transfer-Encoding: "chunked"\r\n\r\n' + _CHUNKS,
    "an encoding with a parameter": b"Transfer-Encoding: chunked;x=1\r\n\r\n" + _CHUNKS,
    "a folded line": b"Transfer-Encoding:\r\n chunked\r\n\r\n" + _CHUNKS,
    "a folded length": b"X: a\r\n Content-Length: 3\r\n" + _LENGTH + b"\r\n" + BODY,
    "an end of line without a return": b"X: a\nTransfer-Encoding: chunked\r\n" + _LENGTH + b"\r\n" + BODY,
    "a return without an end of line": b"X: a\rTransfer-Encoding: chunked\r\n" + _LENGTH + b"\r\n" + BODY,
    "a NUL": b"X: a\0b\r\n" + _LENGTH + b"\r\n" + BODY,
    "ends of chunks without a return": _CHUNKED + b"\r\nf\n" + BODY + b"\n0\n\n",
    "an end of line in a chunk's extension": _CHUNKED + b"\r\nf;a\nb\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a chunk's size with a prefix": _CHUNKED + b"\r\n0xf\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a chunk's size below 0": _CHUNKED + b"\r\n-1\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a chunk's size over 64 bits": _CHUNKED + b"\r\n1000000000000000f\r\n" + BODY + b"\r\n0\r\n\r\n",
    "a chunk that goes on": _CHUNKED + b"\r\nf\r\n" + BODY + b"XX0\r\n\r\n",
    "a length behind the chunks": _CHUNKED + b"\r\nf\r\n" + BODY + b"\r\n0\r\nContent-Length: 5\r\n\r\n",
}
