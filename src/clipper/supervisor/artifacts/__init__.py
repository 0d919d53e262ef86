"""Models as they were uploaded, unpacked where nobody writes to them."""
