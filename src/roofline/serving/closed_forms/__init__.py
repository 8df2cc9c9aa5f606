"""Served times by closed forms, without simulation."""
