"""The floors of the rows of each kernel table; what a row means is the library's to say."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from measured_tables import MACHINES, Table
from roofline import Hardware, KernelFloor
from roofline.bounds import network_time
from roofline.kernel_tables.aiconfigurator.layout import LAYOUTS, lengths
from roofline.kernel_tables.aiconfigurator.layout import message_bytes as sizes
from roofline.kernel_tables.labels import EXPERTS, MATMULS
from roofline.kernel_tables.table import KernelGroup, group_rows

__all__ = [
    "EXPERTS",
    "FAMILIES",
    "MATMULS",
    "Family",
    "Floors",
    "attention_floors",
    "collective_floors",
    "expert_floors",
    "latent_floors",
    "lengths",
    "matmul_floors",
    "sizes",
]


@dataclass(frozen=True, slots=True)
class Floors:
    """The floors of some rows."""

    time: np.ndarray
    """[s]."""
    naive: np.ndarray
    """What is often taken for the floor and is none: a kernel without a cache, an all-reduce as a ring [s]."""
    bound: np.ndarray
    """Which roof binds."""
    read: np.ndarray
    """Cache entries read [B]."""

    @classmethod
    def empty(cls, rows: int) -> "Floors":
        """Return room for the floors of so many rows."""
        return cls(*(np.empty(rows) for _ in range(2)), np.empty(rows, "<U8"), np.zeros(rows))

    def put(self, rows: np.ndarray, floor: KernelFloor, naive: np.ndarray) -> None:
        """Fill in the floors of some rows."""
        self.time[rows], self.bound[rows], self.read[rows], self.naive[rows] = floor.time_s, floor.bound, floor.op.kv_read_bytes, naive


def without_cache(group: KernelGroup, floor: KernelFloor) -> np.ndarray:
    """Return the bound of kernels that nothing is on chip for [s]."""
    return np.maximum(floor.compute_s, floor.total_bytes / floor.hardware.memory_bandwidth)


def as_a_ring(group: KernelGroup, floor: KernelFloor) -> np.ndarray:
    """Return the time of an all-reduce by a ring, of any other collective by sending all its bytes [s]."""
    ranks, size = group.fixed["ranks"], group.sizes["size"]
    share = 2 * (ranks - 1) / ranks if group.fixed["op"] == "all_reduce" else 1
    return network_time(share * size, 0, floor.hardware)


def floors_of(gpu: str, layout: str, table: Table, naive: Callable[..., np.ndarray] = without_cache, **meant: Any) -> Floors:
    """Return the floors of a table's rows, read as the library reads such a table, or as `meant`."""
    hardware, read = Hardware.load(MACHINES[gpu]), LAYOUTS[layout]
    floors = Floors.empty(len(table["latency"]))
    for group in group_rows(read.kind, read.read(table), table["latency"] * 1e-3):
        floor = group.read_as(**meant).floor(hardware)
        floors.put(group.rows, floor, naive(group, floor))
    return floors


def matmul_floors(gpu: str, table: Table, **meant: Any) -> Floors:
    """Return the floors of matrix products."""
    return floors_of(gpu, "gemm", table, **meant)


def attention_floors(gpu: str, table: Table, *, decode: bool, **meant: Any) -> Floors:
    """Return the floors of attention kernels."""
    return floors_of(gpu, "generation_attention" if decode else "context_attention", table, **meant)


def latent_floors(gpu: str, table: Table, *, decode: bool, **meant: Any) -> Floors:
    """Return the floors of latent attention."""
    return floors_of(gpu, "generation_mla" if decode else "context_mla", table, **meant)


def expert_floors(gpu: str, table: Table, *, routing: str, **meant: Any) -> Floors:
    """Return the floors of mixtures of experts, on the rank measured."""
    return floors_of(gpu, "moe", table, **({"routing": routing} | meant))


def collective_floors(gpu: str, table: Table, *, reduce: bool) -> Floors:
    """Return the floors of collectives; none was taken over more ranks than the scale-up links reach, or one server holds."""
    op = np.full(len(table["latency"]), "all_reduce" if reduce else "all_gather", dtype=object)
    return floors_of(gpu, "nccl", {"op_name": op, **table}, as_a_ring)


@dataclass(frozen=True, slots=True)
class Family:
    """How one kind of kernel is checked."""

    title: str
    floors: Callable[..., Floors]
    """Floors of some rows, given a GPU, a table, and what it means if not what its labels say."""
    given: dict[str, Any]
    """What `floors` needs to know besides."""
    labels: tuple[str, ...]
    """Columns that make the label."""
    shape: tuple[str, ...]
    """Columns that make the shape."""
    form: str
    """How a shape reads."""
    naive: str = "below it without a cache"
    """What rows are that beat the naive bound."""

    def of(self, gpu: str, table: Table, **meant: Any) -> Floors:
        """Return the floors of a table's rows."""
        return self.floors(gpu, table, **(self.given | meant))


_ATTENTION = (("attn_dtype", "kv_cache_dtype"), ("batch_size", "new", "cached", "num_heads", "num_key_value_heads", "head_dim"))
_LATENT = (("mla_dtype", "kv_cache_dtype"), ("batch_size", "new", "cached", "num_heads"))
_EXPERTS = (("moe_dtype",), ("num_tokens", "topk", "num_experts", "hidden_size", "inter_size", "moe_tp_size", "moe_ep_size"))
_HEADS, _LATENT_HEADS = "batch {}, {} after {} tokens, heads {}/{} × {}", "batch {}, {} after {} tokens, {} heads"
_ROUTED = "{} tokens, {} of {} experts {} × {}, tp {} ep {}"
_RANKS = (("num_gpus", "size"), "{} ranks, {:,} bytes")

FAMILIES = {
    "gemm": Family("Matrix products", matmul_floors, {}, ("gemm_dtype",), ("m", "n", "k"), "{} × {} × {}"),
    "generation_attention": Family("Decode attention", attention_floors, {"decode": True}, *_ATTENTION, _HEADS),
    "context_attention": Family("Prefill attention", attention_floors, {"decode": False}, *_ATTENTION, _HEADS),
    "moe": Family("Mixtures of experts", expert_floors, {"routing": "best"}, *_EXPERTS, _ROUTED),
    "balanced_moe": Family("Balanced mixtures of experts", expert_floors, {"routing": "uniform"}, *_EXPERTS, _ROUTED),
    "generation_mla": Family("Decode latent attention", latent_floors, {"decode": True}, *_LATENT, _LATENT_HEADS),
    "context_mla": Family("Prefill latent attention", latent_floors, {"decode": False}, *_LATENT, _LATENT_HEADS),
    "all_reduce": Family("All-reduce", collective_floors, {"reduce": True}, ("kernel_source", "dtype"), *_RANKS, "faster than a ring"),
    "redistribution": Family(
        "All-gather, reduce-scatter, all-to-all",
        collective_floors,
        {"reduce": False},
        ("op_name", "dtype"),
        *_RANKS,
        "faster than size / L",
    ),
}
"""What is checked. ``moe`` holds every row to the routing that touches the fewest experts; ``balanced_moe`` holds the rows
labelled balanced, which touch as many as T · k visits can, to the average of uniform routing, which is never more."""
