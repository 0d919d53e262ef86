"""How well policies learn, and how much feedback a server takes."""
