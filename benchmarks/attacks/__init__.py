"""What a neighbour gets beside clients that take all they can."""
