"""What a row of each kernel table means, and its floor."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from measured_tables import MACHINES, Table, kinds
from roofline import Hardware, KernelFloor, attention_floor, experts_floor, latent_attention_floor, matmul_floor
from roofline.bounds import network_time
from roofline.formats import Format
from roofline.ops import all_reduce, exchange

MATMULS: dict[str, dict[str, Any]] = {
    "bfloat16": {"format": "bf16"},
    "fp8": {"format": "fp8"},
    "fp8_block": {"format": "fp8", "weights": "fp8_block128"},
    "nvfp4": {"format": "nvfp4"},
    "sq": {"format": "int8"},
    "int8_wo": {"format": "bf16", "weights": "int8"},
    "int4_wo": {"format": "bf16", "weights": Format("int4 per channel", Fraction(4), "int4", "bf16")},
}
"""Label of a matrix product → formats, each read so that the fewest bytes are compulsory: rows arrive quantized, though some
kernels quantize them on the way and read 16 bits; the scales of activations and of whole channels are not counted. Results
are bf16."""

EXPERTS: dict[str, dict[str, Any]] = {
    **{label: MATMULS[label] for label in ("bfloat16", "fp8", "fp8_block", "nvfp4")},
    "int4_wo": {"format": "bf16", "weights": "int4_sym"},
    "w4afp8": {"format": "fp8", "weights": "int4_sym"},
    "w4a16_mxfp4": {"format": "bf16", "weights": "mxfp4"},
    "w4a8_mxfp4_mxfp8": {"format": "mxfp8", "weights": "mxfp4"},
}
"""Label of a mixture of experts → formats."""

PLAIN_EXPERTS = {(1856, 6, 128), (2688, 22, 512), (5120, 22, 512)}
"""Width, experts per token and experts of the models whose experts have two matrices: Nemotron 3 Nano, Super and Ultra
(``mlp_hidden_act`` relu2). TensorRT-LLM's tables call these kernels nongated, the other two engines' do not say."""


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

    def put(self, rows: np.ndarray, floor: KernelFloor) -> None:
        """Fill in the floors of some rows."""
        self.time[rows], self.bound[rows], self.read[rows] = floor.time_s, floor.bound, floor.op.kv_read_bytes
        self.naive[rows] = np.maximum(floor.compute_s, floor.total_bytes / floor.hardware.memory_bandwidth)


def matmul_floors(gpu: str, table: Table, **meant: Any) -> Floors:
    """Return the floors of matrix products."""
    floors, hardware = Floors.empty(len(table["latency"])), Hardware.load(MACHINES[gpu])
    for kind, rows in kinds(table, "gemm_dtype"):
        floors.put(rows, matmul_floor(*(table[x][rows] for x in "mnk"), hardware, **(MATMULS[kind["gemm_dtype"]] | meant)))
    return floors


def lengths(table: Table, *, decode: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return new and cached tokens: a decode row attends to isl + step positions, its own among them."""
    if decode:
        return np.ones_like(table["isl"]), table["isl"] + table["step"] - 1
    return table["isl"], table["step"]


def attention_floors(gpu: str, table: Table, *, decode: bool, **meant: Any) -> Floors:
    """Return the floors of attention kernels; where either label says fp8, products may run in fp8 and entries be 1 byte."""
    floors, hardware = Floors.empty(len(table["latency"])), Hardware.load(MACHINES[gpu])
    new, cached = lengths(table, decode=decode)
    shape = ("num_heads", "num_key_value_heads", "head_dim", "window_size")
    for kind, rows in kinds(table, *shape, "attn_dtype", "kv_cache_dtype"):
        heads, kv_heads, head_dim, window = (kind[name] for name in shape)
        given = {"kv": "fp8" if "fp8" in (kind["attn_dtype"], kind["kv_cache_dtype"]) else "bf16"}
        given |= {"activations": "fp8" if kind["attn_dtype"] == "fp8" else "bf16"}
        given |= {"visible": "window", "span": window} if window else {}
        steps = {"batch": table["batch_size"][rows], "context": cached[rows], "new": new[rows]}
        floors.put(rows, attention_floor(hardware, heads=heads, kv_heads=kv_heads, head_dim=head_dim, **steps, **(given | meant)))
    return floors


def latent_floors(gpu: str, table: Table, *, decode: bool, **meant: Any) -> Floors:
    """Return the floors of latent attention, all of it of DeepSeek-V3's sizes; projections in the same row are left out."""
    floors, hardware = Floors.empty(len(table["latency"])), Hardware.load(MACHINES[gpu])
    new, cached = lengths(table, decode=decode)
    for kind, rows in kinds(table, "num_heads", "mla_dtype", "kv_cache_dtype"):
        given = {name: "bf16" if kind[label] == "bfloat16" else "fp8" for name, label in _LATENT_FORMATS.items()}
        steps = {"batch": table["batch_size"][rows], "context": cached[rows], "new": new[rows]}
        floors.put(rows, latent_attention_floor(hardware, heads=kind["num_heads"], **steps, **(given | meant)))
    return floors


_LATENT_FORMATS = {"kv": "kv_cache_dtype", "activations": "mla_dtype"}


def expert_floors(gpu: str, table: Table, *, routing: str, **meant: Any) -> Floors:
    """Return the floors of mixtures of experts, on the rank measured.

    Tensor parallelism leaves a rank 1/tp of each expert's width. Expert parallelism leaves it 1/ep of the experts and, being
    the busiest, at least T · k/ep visits. All T tokens may share them, which touches the fewest experts; or as few tokens as
    can make so many visits, which is all that SGLang hands to the rank. So the weights are counted for T tokens with k/ep
    visits each, and tokens in and out for the fewest.
    """
    floors, hardware = Floors.empty(len(table["latency"])), Hardware.load(MACHINES[gpu])
    shape = ("hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size")
    for kind, rows in kinds(table, *shape, "moe_dtype"):
        hidden, wide, top_k, count, tp, ep = (kind[name] for name in shape)
        given = {"hidden": hidden, "intermediate": wide // tp, "gated": (wide, top_k, count) not in PLAIN_EXPERTS, "count": count // ep}
        given |= EXPERTS[kind["moe_dtype"]] | {"routing": routing} | meant
        top_k, tokens = given.pop("top_k", top_k), table["num_tokens"][rows]
        floor = experts_floor(tokens, hardware, top_k=top_k / ep, **given)
        least = min(top_k, given["count"])
        tokens = np.ceil(tokens * (top_k / ep) / least).astype(int)
        few = floor if least == top_k / ep else experts_floor(tokens, hardware, top_k=least, **given)
        moved = floor.op.compulsory_bytes + few.op.activation_bytes
        memory = np.maximum(moved - hardware.last_level_cache, 0) / hardware.memory_bandwidth
        floors.time[rows] = np.maximum(floor.compute_s, memory)
        floors.naive[rows] = np.maximum(floor.compute_s, moved / hardware.memory_bandwidth)
        floors.bound[rows] = np.where(floor.compute_s > memory, "compute", "memory")
    return floors


ELEMENT_BYTES = {"half": 2, "bfloat16": 2, "int8": 1}
"""Label of a collective's elements → size [B]."""


def sizes(table: Table) -> np.ndarray:
    """Return the bytes of a collective: ``message_size`` counts elements in every table, NCCL's as well.

    They are the total as nccl-tests has it: all that a rank ends up with (all-gather) or starts from (the other three).
    """
    each = np.array([ELEMENT_BYTES[label] for label in table["dtype"].tolist()], dtype=int)
    return table["message_size"].astype(int) * each


def collective_floors(gpu: str, table: Table, *, reduce: bool) -> Floors:
    """Return the floors of collectives; none was taken over more ranks than the scale-up links reach, or one server holds.

    What a rank has stays with it in part: all-gather, reduce-scatter and all-to-all leave 1/t of the bytes where they are,
    which is what tokens that visit one device of t do. An all-gather that the switch multiplies sends less; it receives as much.
    """
    floors, hardware, total = Floors.empty(len(table["latency"])), Hardware.load(MACHINES[gpu]), sizes(table)
    floors.bound[:] = "network"
    for kind, rows in kinds(table, "num_gpus"):
        ranks, size = kind["num_gpus"], total[rows]
        if reduce:
            op, naive = all_reduce("all_reduce", size, ranks=ranks, domain=ranks), 2 * (ranks - 1) / ranks * size
        else:
            op, naive = exchange("redistribution", size, ranks=ranks, visits=1, domain=ranks), size
        floors.time[rows] = network_time(op.link_bytes, op.nic_bytes, hardware)
        floors.naive[rows] = network_time(naive, 0, hardware)
    return floors


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
