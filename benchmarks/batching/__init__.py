"""How much of a load that does not wait is answered in time: the scheduler beside tuned rules, in virtual time."""
