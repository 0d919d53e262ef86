"""Learning from feedback: policies, their mathematics, stores of what was learned, and the decision log."""
