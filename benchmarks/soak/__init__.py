"""``make soak``: a server under all that happens to one, for as long as asked, and whether anything of it grows."""
