"""The model abstraction layer: evaluates an input on a version of a model before a deadline."""
