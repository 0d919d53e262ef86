"""A module for each framework, of the same name: its ``load`` reads the files that the framework saves.

Each module imports its library at its top. A module is imported only to load a model of its framework.
"""
