"""Kernel floors and steps put the same amounts under the same roofs, and every operator has a floor that can be written down."""

import inspect
import json
from typing import get_type_hints

import numpy as np
import pytest

from roofline import Hardware, decode_floor, ops, prefill_floor
from roofline.bounds import network_time, roofline_times
from roofline.floors import counted_floor
from roofline.formats import Format
from roofline.kernels import KINDS, count_op
from roofline.ops import Op, all_reduce, norm, send

H100 = Hardware.load("h100-sxm")
BF16 = Format.load("bf16")


def with_latency(latency_s, machine=H100):
    """The same machine with a stated latency of its links."""
    return machine.but(scale_up=machine.scale_up.but(latency_s=latency_s))


# ------------------------------------------------------------------------------------------------------- one assembly of roofs

DEPLOYMENTS = [
    ("llama-3.1-70b", {"tensor_parallel": 8}),
    ("llama-3.1-8b", {"tensor_parallel": 2, "pipeline_parallel": 2}),
    ("mixtral-8x7b", {"tensor_parallel": 4}),
    ("deepseek-v3", {"tensor_parallel": 8, "expert_parallel": 8}),
    ("deepseek-v3", {"data_parallel": 8, "expert_parallel": 8}),
    ("qwen3-30b-a3b", {"context_parallel": 2, "tensor_parallel": 2}),
]


def collectives(floor):
    return [op for op in floor.work.ops if op.kind == "collective"]


@pytest.mark.parametrize(("model", "degrees"), DEPLOYMENTS)
@pytest.mark.parametrize("latency_s", [None, 1e-9, 5e-6, 1e-2])
def test_a_steps_collectives_take_as_long_one_by_one_as_together(model, degrees, latency_s):
    machine = with_latency(latency_s)
    for floor in (decode_floor(model, machine, batch=64, context=1024, **degrees), prefill_floor(model, machine, prompt=512, **degrees)):
        single = [counted_floor(op, machine) for op in collectives(floor)]
        assert single
        moving = sum(network_time(op.link_bytes, op.nic_bytes, machine) for op in collectives(floor))
        waiting = sum(op.hops for op in collectives(floor)) * (latency_s or 0)
        one_by_one = sum(one.network_s for one in single)
        assert floor.network_s == pytest.approx(max(moving, waiting), rel=1e-9)  # all of them overlap with one another
        assert max(moving, waiting) * (1 - 1e-9) <= one_by_one <= (moving + waiting) * (1 + 1e-9)
        assert [one.time_s for one in single] == [one.network_s for one in single]  # nothing else is counted of a collective
        by_op = [row.network_s for row in roofline_times(floor.work, machine) if row.op.kind == "collective"]
        assert [one.network_s for one in single] == by_op


def test_every_message_of_a_collective_waits_for_the_stated_latency():
    reduced = all_reduce("all_reduce", 1024, ranks=8, domain=8)
    assert counted_floor(reduced, H100).time_s == pytest.approx(1024 / 450e9, rel=1e-12)  # 2.3 ns: the spec states no latency
    assert counted_floor(reduced, with_latency(5e-6)).time_s == 5e-6
    step = decode_floor("llama-3.1-70b", with_latency(5e-6), tensor_parallel=8)
    hops = sum(op.hops for op in collectives(step))
    assert hops >= 2 * 80  # two all-reduces in each of the layers
    assert step.network_s == pytest.approx(hops * 5e-6)


def test_an_operator_alone_is_under_the_roofs_of_its_line_in_a_step():
    """On a machine without a cache a kernel's floor is its roofline time, except for arithmetic on general units."""
    machine = Hardware.from_rates(memory_bandwidth=1e12, peak_flops_per_s=1e14)
    rows = decode_floor("llama-3.1-8b", machine, batch=32, context=2048).by_op()
    for row, alone in ((row, counted_floor(row.op, machine)) for row in rows):
        assert alone.memory_s == row.memory_s > 0
        assert alone.compute_s == row.op.flops / 1e14 <= row.compute_s


# --------------------------------------------------------------------------------------------------------- what a floor says

ARGUMENTS = {
    "activations": BF16,
    "entries": 2,
    "count": 8,
    "decays": 0,
    "domain": 8,
    "flops": 1000,
    "head_dim": 16,
    "heads": 4,
    "hidden": 64,
}
ARGUMENTS |= {"inputs": 2, "intermediate": 64, "kernel": 4, "kv": BF16, "kv_heads": 2, "operand": "bf16", "outputs": 64, "outside": True}
ARGUMENTS |= {"pairs": 99.0, "parameters": 64, "qk_dim": 16, "query_dim": 80, "rank": 64, "ranks": 8, "read": 98, "rope_dim": 16, "rows": 8}
ARGUMENTS |= {
    "sequences": 1,
    "series": 2,
    "size": 1024,
    "state": BF16,
    "stored": BF16,
    "stream": BF16,
    "tokens": 1,
    "touched": 2,
    "v_dim": 16,
}
ARGUMENTS |= {"visits": 2, "weights": BF16, "width": 64, "written": 1, "channels": 64, "continued": 1, "elements": 256, "name": "named"}
ARGUMENTS |= {"op": Op("scored", "contraction", flops=8)}


def counted_by(function):
    """What a function of ops counts, given a value for each of its required parameters."""
    required = [p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    counted = function(**{name: ARGUMENTS[name] for name in required})
    return counted if isinstance(counted, tuple) else (counted,)


COST_FUNCTIONS = [
    f for f in (getattr(ops, name) for name in ops.__all__) if inspect.isfunction(f) and "Op" in str(get_type_hints(f)["return"])
]
KERNELS = {
    "matmul": {"m": 8, "n": 64, "k": 64, "format": "bf16", "weights": "bf16"},
    "attention": {"batch": 1, "context": 99, "heads": 4, "head_dim": 16, "kv": "bf16", "activations": "bf16"},
    "latent_attention": {"batch": 1, "context": 99, "heads": 4, "kv": "bf16", "activations": "bf16"},
    "experts": {"tokens": 8, "hidden": 64, "intermediate": 64, "count": 8, "top_k": 2, "format": "bf16", "weights": "bf16"},
    "collective": {"size": 1024, "ranks": 8, "op": "all_gather"},
    "state": {"batch": 2, "heads": 4, "key_dim": 16},
    "convolution": {"batch": 2, "channels": 64, "stream": "bf16"},
    "rowwise": {"rows": 8, "width": 64, "activations": "bf16", "output": "fp8"},
}
REDUCED, ACROSS, ALONE = (all_reduce("all_reduce", 1024, ranks=ranks, domain=8) for ranks in (8, 16, 1))
EVERY_MODEL = ["llama-3.1-8b", "deepseek-v3.2", "deepseek-v4-flash", "qwen3-next-80b-a3b", "jamba-v0.1", "minimax-m3", "gpt-oss-20b"]


def operators():
    for function in COST_FUNCTIONS:
        yield from ((f"{function.__name__} {op.name}", op) for op in counted_by(function))
    yield "all_reduce across domains", ACROSS
    yield "all_reduce of one", ALONE
    yield "nothing", Op("nothing", "element-wise")
    yield from ((f"a {kind}", count_op(kind, **given)) for kind, given in KERNELS.items())
    arrays = {"m": np.array([1, 8]), "n": 64, "k": 64, "format": "bf16", "weights": "bf16"}
    yield "matmuls", count_op("matmul", **arrays)
    yield "all_reduces", count_op("collective", size=np.array([8.0, 2.0**20]), ranks=8, op="all_reduce")


def test_every_kind_is_among_them():
    assert set(KERNELS) == set(KINDS)
    assert {"linear", "attention", "all_reduce", "exchange", "send", "norm"} <= {function.__name__ for function in COST_FUNCTIONS}


@pytest.mark.parametrize("machine", [H100, with_latency(5e-6), Hardware.from_rates(memory_bandwidth=1e12)], ids=["h100", "latency", "bare"])
@pytest.mark.parametrize(("name", "op"), operators(), ids=[name for name, _ in operators()])
def test_every_floor_can_be_written_down(name, op, machine):
    floor = counted_floor(op, machine)
    data = json.loads(floor.to_json())
    assert data == json.loads(json.dumps(floor.to_dict()))
    assert str(floor).startswith(f"{op.name} floor on {machine.name}: ")
    assert len(floor.to_records()) == np.size(floor.time_s)
    assert data["time_s"] == np.asarray(floor.time_s).tolist()
    assert all(np.ravel(floor.time_s) >= 0)


@pytest.mark.parametrize("model", EVERY_MODEL)
def test_every_operator_of_a_model_can_be_written_down(model):
    degrees = {"tensor_parallel": 2, "pipeline_parallel": 2}
    step = decode_floor(model, H100, batch=4, context=5000, **degrees)
    for op in step.work.ops:
        floor = counted_floor(op, H100)
        assert json.loads(floor.to_json())["kind"] == f"{op.name} floor"
        assert str(floor)
        assert floor.to_records()[0]["time_s"] == floor.time_s


@pytest.mark.parametrize(
    ("op", "names"),
    [
        (REDUCED, ["scale-up link"]),
        (ACROSS, ["scale-up link", "network"]),
        (send("send", 1024, outside=False), ["scale-up link"]),
        (ALONE, []),
        (count_op("matmul", **KERNELS["matmul"]), ["memory bandwidth", "bf16 matrix peak", "last-level cache"]),
        (norm("norm", 8, width=64, parameters=64, stored=BF16, stream=BF16), ["memory bandwidth", "last-level cache"]),
    ],
)
def test_the_ceilings_of_a_kernel_are_those_that_its_roofs_use(op, names):
    floor = counted_floor(op, H100)
    assert len(floor.ceilings) == len(names)
    for ceiling, name in zip(floor.ceilings, names, strict=True):
        assert name in ceiling.name
        assert ceiling.name in str(floor)
    assert [c["name"] for c in floor.to_dict()["ceilings"]] == [c.name for c in floor.ceilings]


def test_a_collective_says_what_it_assumes_of_the_links():
    still, waiting = counted_floor(REDUCED, H100), counted_floor(REDUCED, with_latency(5e-6))
    assert "without latency" in str(still)
    assert "network 2.276 ns" in str(still)
    assert "over the links" in str(still)
    assert "without latency" not in str(waiting)
    assert "link latency of 5 µs" in str(waiting)
    assert "products in" not in str(still)
    assert "no rate of links is known" in str(counted_floor(REDUCED, Hardware.from_rates(memory_bandwidth=1e12)))


def test_a_step_and_its_collectives_assume_the_same():
    for machine in (H100, with_latency(5e-6)):
        step = decode_floor("llama-3.1-8b", machine, tensor_parallel=8)
        said = [note for note in step.assumptions if note.startswith("collectives")]
        assert said == [note for note in counted_floor(collectives(step)[0], machine).assumptions if note.startswith("collectives")]
        assert ("without latency" in said[0]) == (machine is H100)
