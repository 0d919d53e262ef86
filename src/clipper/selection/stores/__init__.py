"""Where learned state is kept: durable, additive, shared by all workers of one or several Clippers."""
