"""How many replicas a load needs: a simulation of queues, and a search that asks it."""
