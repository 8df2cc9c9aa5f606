"""`roofline hardware` and `roofline models`: what is known by name."""

from collections.abc import Iterable
from json import dumps
from typing import Annotated, Any

from roofline.catalog import list_models
from roofline.cli.app import Given, make_console
from roofline.hardware import Hardware
from roofline.model import Model
from roofline.units import GIGA, show_bytes, show_rate


def hardware(
    name: Annotated[str | None, Given("Show one machine in full.", positional=True)] = None,
    json: Annotated[bool, Given("Print JSON instead of text.")] = False,
) -> None:
    """List the machines that are known, or show one with the source of every figure."""
    if name is not None:
        machine = Hardware.load(name)
        print(dumps(_stated(machine.to_dict()), indent=2, ensure_ascii=False) if json else str(machine))
        return
    machines = [Hardware.load(known) for known in Hardware.list()]
    if json:
        print("[" + ",\n".join(dumps(_stated(m.to_dict()), ensure_ascii=False) for m in machines) + "]")
        return
    _print_table(("id", "name"), ("16-bit peak", "memory", "bandwidth", "ridge FLOP/B"), map(_machine_row, machines))


def _machine_row(machine: Hardware) -> tuple[str, ...]:
    peak = machine.peak("bf16").value
    size = "" if machine.memory_capacity is None else show_bytes(machine.memory_capacity)
    rate, ridge = (show_rate(peak, "FLOP/s"), f"{machine.ridge('bf16'):.0f}") if peak != float("inf") else ("", "")
    return machine.id, machine.name, rate, size, show_rate(machine.memory_bandwidth, "B/s"), ridge


def models() -> None:
    """List the models that are known by name. Any other is read from its own config.json."""
    _print_table(
        ("name",), ("parameters", "active", "layers", "KV per token, bf16"), (_model_row(Model.load(name)) for name in list_models())
    )


def _model_row(model: Model) -> tuple[str, ...]:
    billions = (f"{count / GIGA:.4g} B" for count in (model.parameters, model.active_parameters))
    return model.name, *billions, str(model.num_layers), show_bytes(model.kv_bytes_per_token())


def _print_table(texts: Iterable[str], figures: Iterable[str], rows: Iterable[tuple[str, ...]]) -> None:
    console = make_console()
    from rich.table import Table

    table = Table()
    for heading in texts:
        table.add_column(heading, overflow="fold")
    for heading in figures:
        table.add_column(heading, justify="right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _stated(value: Any) -> Any:
    """Leave out what a spec does not state."""
    return {name: _stated(v) for name, v in value.items() if v is not None} if isinstance(value, dict) else value
