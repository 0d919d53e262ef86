"""The model abstraction layer: "predict this, on that version, by then"."""
