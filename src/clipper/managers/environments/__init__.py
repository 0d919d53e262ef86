"""A model's Python environment: what is in it, how uv is told to make it, which are kept. Values in, values out."""
