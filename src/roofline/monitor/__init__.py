"""What a device does while it works: its counters, read without disturbing it, and what binds it."""

__all__: list[str] = []
