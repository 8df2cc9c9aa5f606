"""How many devices share a model, and in which ways."""

from dataclasses import dataclass, fields
from typing import Any

from roofline.errors import InvalidValueError
from roofline.units import whole_number


@dataclass(frozen=True, slots=True)
class Parallel:
    """Degrees of parallelism of one replica of a model.

    Parameters
    ----------
    tensor : int, optional
        Devices that share every layer: heads, widths and vocabulary are split [-].
    pipeline : int, optional
        Stages that share the layers; one step is in flight in each [-].
    expert : int, optional
        Devices that share the routed experts, whole experts each; divides tensor · data [-].
    data : int, optional
        Groups of devices that share the sequences: attention and cache of each sequence live in one of them [-].
    context : int, optional
        Devices that share the cache of every sequence, and the attention over it [-].

    Examples
    --------
    >>> Parallel(tensor=8, pipeline=2).devices
    16
    """

    tensor: int = 1
    pipeline: int = 1
    expert: int = 1
    data: int = 1
    context: int = 1

    def __post_init__(self) -> None:
        for field in fields(self):
            value: Any = getattr(self, field.name)
            if type(value) is int and value == 1:  # the usual degree
                continue
            degree = whole_number(f"{field.name}_parallel", value, minimum=1)
            object.__setattr__(self, field.name, degree)
        if (self.tensor * self.data) % self.expert:
            raise InvalidValueError(
                f"expert_parallel is {self.expert}; it must divide tensor_parallel · data_parallel = {self.tensor * self.data}, "
                "the devices that the experts are spread over."
            )

    @property
    def devices(self) -> int:
        """Devices of one replica [-]."""
        return self.tensor * self.pipeline * self.data * self.context

    @property
    def in_flight_note(self) -> str:
        """What `batch` means where several steps are in flight; empty where one is."""
        if self.pipeline == 1:
            return ""
        return (
            f"batch is that of one step: with {self.pipeline} pipeline stages {self.pipeline} steps are in flight, "
            f"so {self.pipeline} × batch sequences are in memory"
        )

    @property
    def expert_tensor(self) -> int:
        """Devices that share one expert's width [-]."""
        return self.tensor * self.data // self.expert


SINGLE = Parallel()
