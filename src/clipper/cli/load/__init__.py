"""The open-loop load generator: ``arrivals``, ``sweep``, ``inputs``, ``answers``, ``report`` and ``page`` decide."""
