"""The container protocol: bytes to messages and back, without sockets, by the standard library alone.

The specification is proto/container-protocol.md. proto/vectors/ has example frames in hex for every SDK.
"""
