"""How well confidences are calibrated on real pictures, through a real server: see docs/confidence.md."""
