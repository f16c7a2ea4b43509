"""How long `prune check` takes, from the start of the interpreter to its exit."""
