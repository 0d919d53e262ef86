"""The file that describes a server: reads it, compares it with a server, and writes it. Values in, values out."""
