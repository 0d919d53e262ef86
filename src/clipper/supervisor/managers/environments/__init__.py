"""Python environments of models: decides which a model needs, makes it with uv, and keeps it for a while."""
