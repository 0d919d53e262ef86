"""What policies lose by having to learn: simulated streams of losses, textbook policies tuned for them, and ours."""
