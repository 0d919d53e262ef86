"""A model's Python environment: which one it needs, how uv makes it, how long it is kept."""
