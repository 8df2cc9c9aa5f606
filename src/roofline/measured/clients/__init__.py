"""One reader per benchmark client: its file to a `ServingMeasurement`."""
