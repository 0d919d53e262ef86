"""Containers: started, made ready, watched and stopped. Each manager, a way to run them, is a folder of its own."""
