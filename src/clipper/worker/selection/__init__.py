"""The model selection layer: answers an application's queries by its models."""
