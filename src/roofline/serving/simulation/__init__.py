"""Replicas, routers and pools under the requests of a workload, event by event."""
