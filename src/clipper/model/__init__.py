"""Everything that runs in the process of a model, and the protocol that it speaks. It needs only Python and numpy."""
