"""Programs that show Clipper at work."""
