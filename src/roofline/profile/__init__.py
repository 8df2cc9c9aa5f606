"""What a run spent its time on: operators of torch code, steps of traces, reports of profilers; each beside its roof."""

__all__: list[str] = []
