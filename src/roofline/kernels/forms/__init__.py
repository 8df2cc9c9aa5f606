"""The time of one kernel: one form per family, in a module of its own."""
