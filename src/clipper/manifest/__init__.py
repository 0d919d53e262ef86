"""One file that says what a server has: reads it, compares it with a server, and writes it. Values in, values out."""
