"""Figures 3, 4, 6 and 11 of the paper on real nets, for a machine with GPUs; without one the processor computes."""
