"""Uploaded models, unpacked where nobody writes to them."""
