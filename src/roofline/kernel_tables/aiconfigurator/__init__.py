"""The tables of the package ``aiconfigurator-core``: where they are, and what their columns mean.

``systems/data/<gpu>/<folder>/<engine>/<version>/<table>_perf.parquet``, one row per measured kernel, ``latency`` in milliseconds.
"""
