"""How the control plane grows: a real supervisor, the control code of real workers, and replicas that are stubs."""
