"""One module for each framework, with its name: ``load`` reads what that framework saved.

Each module imports its library at its top. A module is imported only to load a model of its framework.
"""
