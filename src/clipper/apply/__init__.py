"""Makes a server have what a file says: packs, asks the server, and runs the steps of ``manifest.plan``."""
