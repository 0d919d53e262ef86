"""Communication with model processes: the container protocol (pure) and the link that speaks it."""
