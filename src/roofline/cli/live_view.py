"""The live view of `roofline monitor`: a table that is drawn anew with every sample. The only module that knows rich."""

from collections.abc import Mapping
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from roofline.cli.monitor import cells_of, lacking, said
from roofline.monitor import DeviceSample, Verdict

_COLOURS = {"compute_bound": "magenta", "memory_bound": "blue", "balanced": "green", "underutilized": "yellow", "unknown": "dim"}


class LiveView:
    """A table at a terminal, of one row for each device.

    Parameters
    ----------
    stream : file
        The terminal [-].
    """

    def __init__(self, stream: TextIO) -> None:
        self._live = Live(console=Console(file=stream, highlight=False), auto_refresh=False)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._live.__exit__(kind, error, trace)

    def __call__(self, samples: Mapping[str, DeviceSample], verdicts: Mapping[str, Verdict]) -> None:
        """Draw new samples."""
        self._live.update(_drawn(samples, verdicts), refresh=True)


def _drawn(samples: Mapping[str, DeviceSample], verdicts: Mapping[str, Verdict]) -> Group:
    table = Table(box=None, pad_edge=False)
    table.add_column("device")
    for heading in cells_of(next(iter(samples.values()))):
        table.add_column(heading, justify="right")
    table.add_column("what binds")
    for device, sample in samples.items():
        bottleneck = verdicts[device].bottleneck
        table.add_row(device, *cells_of(sample).values(), Text(bottleneck.replace("_", "-"), style=_COLOURS[bottleneck]))
    reasons = [Text(f"{device}: {said(verdicts[device], sample)}") for device, sample in samples.items()]
    notes = [Text(line, style="dim") for line in lacking(samples.values())]
    return Group(table, Text(), *reasons, *notes)
