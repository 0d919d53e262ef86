"""The open-loop load generator of ``clipper load``; the README of the room names what decides and what acts."""
