"""One module a framework, by its name: ``load`` reads what that framework saved.

Each imports its library at its top, so none is imported before a model of it is to be loaded.
"""
