"""Containers: started, made ready, watched and stopped. Each manager, a way to run them, has a folder of its own."""
