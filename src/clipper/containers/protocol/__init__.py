"""The container protocol: bytes to messages and back. No sockets; standard library only.

The specification is proto/container-protocol.md; proto/vectors/ holds frames as hex for every SDK.
"""
