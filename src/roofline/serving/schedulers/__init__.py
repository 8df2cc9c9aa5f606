"""The schedulers of engines: which requests each step holds."""
