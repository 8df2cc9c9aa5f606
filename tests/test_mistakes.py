"""What new users get wrong: every mistake is answered with one sentence of ours, and with nothing that comes from within."""

import inspect
import math
import re
import warnings

import numpy as np
import pytest

import roofline
from roofline import (
    FORMATS,
    SLO,
    Arrivals,
    CalibrationRecord,
    CallError,
    Deployment,
    Format,
    Hardware,
    InvalidValueError,
    Lengths,
    Model,
    RequestTimes,
    RooflineError,
    Step,
    StepTime,
    UnknownNameError,
    UnknownOptionError,
    Workload,
    calibrate,
    decode_estimate,
    decode_floor,
    experts_floor,
    explain,
    fewest_devices,
    journey,
    levers,
    list_records,
    load_record,
    matmul_floor,
    max_batch,
    max_context,
    mbu,
    mfu,
    prefill_estimate,
    prefill_floor,
    resident,
    ridge_point,
    step_floor,
    sweep,
)
from roofline.batching import Regime
from roofline.records import save_record

MODEL, MACHINE = "llama-3-8b", "h100-sxm"
FLOOR = decode_floor(MODEL, MACHINE, batch=4, context=100)  # of about 5 ms
NODE = Deployment(MODEL, MACHINE)
TIME = StepTime(NODE, "floor")
WORKLOAD = Workload(prompt=[8, 9], output=[2, 3], arrival_s=[0, 1])
TIMES = RequestTimes(WORKLOAD, [0, 1], [0, 1], [1, 2], [2, 3], [0, 0], [0, 0], [0, 0])

MISTAKES = [
    # what is needed is left out
    (lambda: decode_floor(), CallError, "decode_floor needs model"),
    (lambda: matmul_floor(8, 8, 8, MACHINE), CallError, "matmul_floor needs format"),
    (lambda: Hardware.from_rates(), CallError, "Hardware.from_rates needs memory_bandwidth"),
    (lambda: Hardware.load(), CallError, "Hardware.load needs source"),
    (lambda: Model.load(), CallError, "Model.load needs source"),
    (lambda: Step.prefill(), CallError, "Step.prefill needs prompt"),
    (lambda: mfu(FLOOR), CallError, "mfu needs time_s; it takes floor, time_s, hardware"),
    (lambda: StepTime(), CallError, "StepTime needs deployment"),
    (lambda: TIME(8, 1), CallError, "StepTime needs cached"),
    (lambda: decode_floor(MODEL), InvalidValueError, "no machine: name one"),
    (lambda: prefill_floor(MODEL, MACHINE), InvalidValueError, "prompt is None"),
    (lambda: step_floor(MODEL, MACHINE), InvalidValueError, "a step is built with Step.decode"),
    (lambda: calibrate("cpu"), CallError, "calibrate needs output"),
    (lambda: CalibrationRecord(), ValueError, "CalibrationRecord: id is missing"),
    # one value too many, or in the wrong place
    (lambda: decode_floor(MODEL, MACHINE, 8), CallError, "only model, hardware without a name, and 3 were given; name the others: batch="),
    (lambda: Step.decode(8, 1024), CallError, "Step.decode takes no value without a name.*name the others: batch=, context="),
    (lambda: Hardware.load("h100").but("h200"), CallError, "Hardware.but takes no value without a name"),
    (lambda: Deployment(MODEL, MACHINE, 8), CallError, "Deployment takes only model, hardware without a name"),
    (lambda: decode_floor(MODEL, MACHINE, model=MODEL), CallError, "was given model twice"),
    (lambda: Regime(), CallError, "Regime needs bound and first_batch and last_batch"),
    # names that nobody knows here
    (lambda: decode_floor(MODEL, MACHINE, batchsize=8), UnknownOptionError, "decode_floor has no batchsize"),
    (lambda: decode_floor(MODEL, MACHINE, tp=8), UnknownOptionError, "it is called tensor_parallel here"),
    (lambda: Step.decode(contxt=8), UnknownOptionError, "Step.decode has no contxt: nearest: context"),
    (lambda: Hardware.load("h100").but(bandwidth=3e12), InvalidValueError, "Hardware has no 'bandwidth'"),
    (lambda: decode_floor("lama-3-8b", MACHINE), UnknownNameError, "unknown model"),
    (lambda: decode_floor(MODEL, "h10"), UnknownNameError, "unknown machine 'h10'"),
    (lambda: load_record("mine.json"), ValueError, "mine.json: cannot be read"),
    # units
    (lambda: decode_floor(70, MACHINE), InvalidValueError, 'parameters is 70, .*did you mean "70B" or 70e9'),
    (lambda: decode_floor("70", MACHINE), InvalidValueError, 'did you mean "70B" or 70e9'),
    (lambda: max_batch(MODEL, MACHINE, context=8, reserve=2), InvalidValueError, "reserve is 2 B, .*did you mean 2 GB"),
    (lambda: max_batch(MODEL, MACHINE, context=8, reserve="2Gb"), InvalidValueError, "reserve is '2Gb'.*text with its unit"),
    (lambda: resident(MODEL, memory_capacity=80), InvalidValueError, "memory_capacity is 80 B.*did you mean 80 GB"),
    (lambda: decode_floor(MODEL, memory_bandwidth=3350), InvalidValueError, "did you mean 3350 GB/s"),
    (lambda: decode_floor(MODEL, memory_bandwidth="3.35"), InvalidValueError, "memory_bandwidth is '3.35'.*text with its unit"),
    (lambda: decode_floor(MODEL, MACHINE, utilization=90), InvalidValueError, "utilization is 90; .*did you mean 0.9"),
    (lambda: mbu(FLOOR, 24.5), InvalidValueError, "time_s is 24.5 s, .* times the floor .*are these milliseconds"),
    (lambda: mfu(FLOOR, 1e-6), InvalidValueError, "1 µs was measured, but the floor is"),
    # values that cannot be
    (lambda: decode_floor(MODEL, MACHINE, batch="8"), InvalidValueError, "batch is '8'"),
    (lambda: decode_floor(MODEL, MACHINE, batch=0), InvalidValueError, "batch is 0; it must be a whole number of at least 1"),
    (lambda: decode_floor(MODEL, MACHINE, context=math.nan), InvalidValueError, "context is nan"),
    (lambda: decode_floor(MODEL, MACHINE, tensor_parallel=[1, 2]), InvalidValueError, r"tensor_parallel is \[1, 2\].*call once for each"),
    (lambda: resident(MODEL, MACHINE, page={}), InvalidValueError, r"page is \{\}; it must be a single whole number of at least 1"),
    (lambda: resident(MODEL, MACHINE, page=None), InvalidValueError, "page is None; it must be a single whole number of at least 1"),
    (lambda: decode_floor(MODEL, MACHINE, data_parallel=None), InvalidValueError, "data_parallel is None; it must be a single whole number"),
    (lambda: sweep(MODEL, MACHINE, executor=5), InvalidValueError, "executor is 5; it must have submit"),
    (lambda: decode_estimate(MODEL, MACHINE, cuda_graph="yes"), InvalidValueError, "cuda_graph is 'yes'; it must be True or False"),
    (lambda: TIME([[8, math.nan]], 1, 100), InvalidValueError, "count contains nan"),
    (lambda: TIME([8, 1], [1, 0], 100), InvalidValueError, "new contains 0; a sequence of a step has at least one new token"),
    (lambda: TIME([8, 1], 1, [100, -1]), InvalidValueError, "cached contains -1"),
    (lambda: TIME.decode(8, context=800), UnknownOptionError, "StepTime.decode has no context: nearest: total_context"),
    (lambda: TIME.decode(8, "8k"), InvalidValueError, "total_context is '8k'"),
    (lambda: experts_floor(8, MACHINE, hidden=64, intermediate=64, count=8, top_k=2, format="bf16", gated="no"), InvalidValueError, "gated is"),
    (lambda: Format.blocks("a", 128), InvalidValueError, "rows is 'a'"),
    (lambda: ridge_point(peak_flops_per_s=1e15, bandwidth=0), InvalidValueError, "bandwidth is 0"),
    (lambda: explain(5), InvalidValueError, "explain takes the floor of a step, not 5"),
    (lambda: FLOOR.to_json(indent="x"), InvalidValueError, "indent is 'x'"),
    (lambda: Step(()), InvalidValueError, "a step has at least one group"),
]  # fmt: skip


@pytest.mark.parametrize(("mistake", "error", "message"), MISTAKES, ids=[message for _, _, message in MISTAKES])
def test_a_mistake_is_answered_with_a_sentence(mistake, error, message):
    with pytest.raises(RooflineError, match=message) as caught:
        mistake()
    assert isinstance(caught.value, error)
    text = str(caught.value)
    assert len(text) <= 400
    assert text[-1] in ".?"
    assert "\n" not in text


def test_there_are_fifty():
    assert len(MISTAKES) >= 50


@pytest.mark.parametrize("sentence", [CallError, UnknownOptionError])
def test_python_s_own_error_catches_ours(sentence):
    assert issubclass(sentence, TypeError)


def test_type_errors_from_within_stay_what_they_are():
    """What somebody's own function raises while one of ours calls it is no mistake in calling ours."""

    def broken(features, seconds):
        raise TypeError("theirs")

    with pytest.raises(TypeError, match=r"^theirs$"):
        StepTime(Deployment(MODEL, MACHINE), replace={"matmul": broken}).decode(1, 100)


# ------------------------------------------------------------------------------------------------------------------ quantities


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GB", 2_000_000_000),
        ("2 gb", 2_000_000_000),
        ("1.5 GiB", 1_610_612_736),  # 1.5 · 2^30
        ("512 MiB", 536_870_912),  # 2^29
        ("2G", 2_000_000_000),
        ("1e9 B", 1_000_000_000),
    ],
)
def test_a_reserve_may_be_text_with_its_unit(text, size):
    assert NODE.but(reserve=text).reserve == size


def test_rates_may_be_text_with_their_unit():
    machine = Hardware.from_rates(memory_bandwidth="3.35 TB/s", peak_flops_per_s="989 TFLOP/s", memory_capacity="80 GB")
    assert machine == Hardware.from_rates(memory_bandwidth=3.35e12, peak_flops_per_s=989e12, memory_capacity=80_000_000_000)
    assert max_batch(MODEL, memory_capacity="80 GB", context=8192) == max_batch(MODEL, memory_capacity=80e9, context=8192)


@pytest.mark.parametrize("text", ["2", "GB", "2 Gb", "2 TFLOP/s", "two GB", "2 iB", "1.2.3 GB", "-2 GB", ""])
def test_other_text_is_no_size(text):
    with pytest.raises(InvalidValueError, match="text with its unit"):
        NODE.but(reserve=text)


@pytest.mark.parametrize("text", ["70k", "70M", "70B"])
def test_text_says_of_how_many_parameters_it_speaks(text):
    assert decode_floor(text, MACHINE).model.parameters == 70 * {"k": 10**3, "M": 10**6, "B": 10**9}[text[-1]]


# ---------------------------------------------------------------------------------------------------------------- plausibility


def test_what_leaves_engines_no_room_is_noted():
    """vLLM takes 0.9 of the memory unless --gpu-memory-utilization says otherwise (vLLM, engine arguments)."""
    asked = {"tensor_parallel": 2, "context": 8192}
    tight, roomy = (decode_floor("llama-3.1-70b", MACHINE, batch=batch, **asked) for batch in (8, 1))
    assert tight.fits
    assert "80%" not in str(tight)
    [note] = [note for note in tight.assumptions if "engines" in note]
    assert f"{(tight.resident_bytes / 85520809984):.0%}" in note  # the board's own report of its memory
    assert not [note for note in roomy.assumptions if "engines" in note]
    assert not decode_floor("llama-3.1-70b", MACHINE, batch=8, utilization=0.9, **asked).fits
    held = resident("llama-3.1-70b", MACHINE, batch=8, **asked)
    assert "engines" in str(held)
    assert "engines" not in str(resident("llama-3.1-70b", MACHINE, batch=1, **asked))
    several = decode_floor("llama-3.1-70b", MACHINE, batch=np.array([1, 8, 64]), **asked)
    assert "1 of 3 steps fit only just" in str(several)


MEMORY = [
    decode_floor,
    prefill_floor,
    decode_estimate,
    prefill_estimate,
    resident,
    max_batch,
    max_context,
    fewest_devices,
    journey,
    levers,
    sweep,
]


@pytest.mark.parametrize("ask", MEMORY, ids=lambda ask: ask.__name__)
def test_the_share_that_may_be_used_is_accepted_wherever_memory_is_judged(ask):
    own = {prefill_floor: {"prompt": 8}, prefill_estimate: {"prompt": 8}, max_batch: {"context": 8}}.get(ask, {})
    assert ask(MODEL, MACHINE, utilization=0.9, reserve="1GB", **own) is not None


def test_an_empty_context_is_noted():
    assert "context 0" in str(decode_floor(MODEL, MACHINE))
    assert "context 0" not in str(decode_floor(MODEL, MACHINE, context=1))
    assert "context 0" not in str(prefill_floor(MODEL, MACHINE, prompt=8))
    assert "context 0" not in str(decode_floor("70B", MACHINE))  # which has no cache


def test_more_than_the_model_s_positions_is_noted():
    """max_position_embeddings of meta-llama/Meta-Llama-3-8B is 8192."""
    for floor in (decode_floor(MODEL, MACHINE, context=8192), prefill_floor(MODEL, MACHINE, prompt=8193)):
        assert "exceeds the 8192 positions" in str(floor)


def test_launches_of_short_kernels_are_no_milliseconds():
    kernel = matmul_floor(8, 8, 8, MACHINE, format="bf16")
    assert 0 <= mbu(kernel, 5e-6) < 1


# ------------------------------------------------------------------------------------------- every callable with wrong values

WRONG = [
    None, math.nan, math.inf, -math.inf, -1, 0, 2.5, "", "x" * 200, "no such", True, False, 1j, [], [1], ["a"], {}, {"a": 1}, (), object(),
    b"x", 10**400, np.array([]), np.array([1, 2]), np.array(["a"]), np.array([np.nan, 1.0]), lambda: 1, {1}, int, np.float32(3), range(3),
]  # fmt: skip

RECORD = load_record(list_records()[0])
RIGHT = {
    "Workload": ([8, 9], [2, 3], [0, 1]),
    "RequestTimes": (WORKLOAD, [0, 1], [0, 1], [1, 2], [2, 3], [0, 0], [0, 0], [0, 0]),
    "Workload.generated": (2,),
    "Workload.resampled": (2,),
    "Workload.from_users": (2,),
    "Workload.between": (0, 1),
    "Lengths.uniform": (1, 2),
    "Arrivals.gamma": (1,),
    "Arrivals.weibull": (1,),
    "Arrivals.on_off": (1,),
    "RequestTimes.between": (0, 9),
    "step_floor": (MODEL, MACHINE, Step.decode()),
    "step_estimate": (MODEL, MACHINE, Step.decode()),
    "kernel_estimate": (matmul_floor(8, 8, 8, MACHINE, format="bf16"),),
    "matmul_floor": (8, 8, 8, MACHINE),
    "attention_floor": (MACHINE,),
    "latent_attention_floor": (MACHINE,),
    "experts_floor": (8, MACHINE),
    "mfu": (FLOOR, 1.0),
    "mbu": (FLOOR, 1.0),
    "explain": (decode_floor(MODEL, MACHINE),),
    "attainable": (1.0,),
    "expected_tokens": (3, 0.5),
    "load_record": (RECORD,),
    "StepTime": (NODE,),
    "check_table": ("no-such.csv", MACHINE),
    "record_from_tables": ("no-such.csv", MACHINE),
    "calibrate": ("no-such-device", "no-such-folder/record.json"),
    "StepTime.__call__": (8, 1, 100),
    "StepTime.decode": (8, 100),
    "Step.prefill": (8,),
    "Step.chunk": (8,),
    "Step.verify": (3,),
    "Format.blocks": (128, 128),
    "Format.grouped": ("int4",),
}
NAMED = {
    "Workload.generated": {"prompt": 8, "output": 8},
    "Workload.from_users": {"prompt": 8, "output": 8},
    "Lengths.lognormal": {"mean": 8, "cv": 1},
    "Arrivals.gamma": {"cv": 1},
    "Arrivals.weibull": {"cv": 1},
    "Arrivals.on_off": {"on_s": 1, "off_s": 1},
    "RequestTimes.cost": {"price_per_device_hour": 1, "devices": 1},
    "RequestTimes.energy": {"power_w": 1, "devices": 1},
    "prefill_floor": {"prompt": 8},
    "prefill_estimate": {"prompt": 8},
    "matmul_floor": {"format": "bf16"},
    "attention_floor": {"heads": 8, "head_dim": 64},
    "latent_attention_floor": {"heads": 8},
    "experts_floor": {"hidden": 64, "intermediate": 64, "count": 8, "top_k": 2, "format": "bf16"},
    "max_batch": {"context": 100},
    "serving_estimate": {"prompt": 100, "output": 10, "concurrency": 4},
    "max_rate": {"slo": {"tpot_s": 0.02}, "prompt": 100, "output": 10},
    "Hardware.from_rates": {"memory_bandwidth": 3e12},
    "ridge_point": {"peak_flops_per_s": 1e15, "bandwidth": 1e12},
    "attainable": {"peak_flops_per_s": 1e15, "bandwidth": 1e12},
    "StepTime.table": {"batch": 1, "context": 1},
    "Step.of": {"new": 1},
    "Format.grouped": {"group": 128},
}
OBJECTS = {
    "Hardware": Hardware.load(MACHINE),
    "Model": Model.load(MODEL),
    "Step": Step.decode(),
    "Format": FORMATS["bf16"],
    "StepTime": TIME,
    "Deployment": NODE,
    "Floor": FLOOR,
    "Resident": resident(NODE, batch=1),
    "Workload": WORKLOAD,
    "Lengths": Lengths,
    "Arrivals": Arrivals,
    "SLO": SLO(ttft_s=1),
    "RequestTimes": TIMES,
}
METHODS = [
    "Hardware.load",
    "Hardware.list",
    "Hardware.from_rates",
    "Hardware.from_record",
    "Hardware.calibrated",
    "Hardware.but",
    "Hardware.peak",
    "Hardware.ridge",
    "Hardware.from_dict",
    "Hardware.to_dict",
    "Model.load",
    "Model.anonymous",
    "Model.from_dict",
    "Model.but",
    "Model.by_component",
    "Model.bytes_by_component",
    "Model.stored_bytes",
    "Model.kv_bytes_per_token",
    "Step.of",
    "Step.decode",
    "Step.prefill",
    "Step.chunk",
    "Step.verify",
    "Step.share",
    "Step.pairs",
    "Step.read",
    "Step.written",
    "Format.load",
    "Format.grouped",
    "Format.blocks",
    "StepTime.__call__",
    "StepTime.decode",
    "StepTime.table",
    "Deployment.but",
    "Floor.by_op",
    "Floor.table",
    "Floor.to_dict",
    "Floor.to_json",
    "Floor.to_records",
    "Floor.summary",
    "Resident.to_json",
    "Workload.from_trace",
    "Workload.generated",
    "Workload.from_users",
    "Workload.take",
    "Workload.between",
    "Workload.scaled",
    "Workload.by_hour",
    "Workload.resampled",
    "Lengths.fixed",
    "Lengths.uniform",
    "Lengths.lognormal",
    "Lengths.empirical",
    "Arrivals.even",
    "Arrivals.poisson",
    "Arrivals.gamma",
    "Arrivals.weibull",
    "Arrivals.on_off",
    "Arrivals.varying",
    "SLO.met",
    "SLO.kept",
    "SLO.reached",
    "RequestTimes.from_records",
    "RequestTimes.between",
    "RequestTimes.warm",
    "RequestTimes.statistics",
    "RequestTimes.goodput",
    "RequestTimes.gpu_seconds",
    "RequestTimes.cost",
    "RequestTimes.energy",
]


def callables():
    for name in roofline.__all__:
        thing = getattr(roofline, name)
        if name.startswith("plot_"):
            continue  # pictures are in test_plotting
        if callable(thing) and not (isinstance(thing, type) and issubclass(thing, Exception)):
            yield name, thing
    for name in METHODS:
        owner, _, method = name.partition(".")
        yield name, getattr(OBJECTS[owner], method)


CALLABLES = dict(callables())


def calls(name, function):
    """Calls of a function: right but for one value, and such as do not fit it at all."""
    right, named = RIGHT.get(name, ()), NAMED.get(name, {})
    own = [p for p in inspect.signature(function).parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if not right and own and own[0].name == "model":
        right = (MODEL, MACHINE)
    yield (), {}
    yield tuple(range(9)), {}
    yield right, {**named, "nonsense": 1}
    if right:
        yield right, {**named, own[0].name: right[0]}
    for place, parameter in enumerate(own):
        for wrong in WRONG:
            if parameter.kind is parameter.KEYWORD_ONLY or place > len(right):
                yield right, {**named, parameter.name: wrong}
            else:
                yield (*right[:place], wrong, *right[place + 1 :]), named


@pytest.mark.parametrize("name", CALLABLES)
def test_wrong_values_give_a_result_or_a_sentence(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where no file has the name of a wrong value
    refused = 0
    for given, named in calls(name, CALLABLES[name]):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                CALLABLES[name](*given, **named)
        except RooflineError as error:
            text = str(error)
        except Exception as error:
            pytest.fail(f"{name}(*{given!r:.200}, **{named!r:.200}): {type(error).__name__}: {error!s:.200}")
        else:
            continue
        refused += 1
        said = re.split(r"[;.] (?:known|supported|nearest|Known)", text)[0]  # a list of names may follow
        assert 10 < len(said) <= 300, text
        assert "Traceback" not in text
        assert " at 0x" not in text
    assert refused, "not even a call that cannot fit is refused"


def test_a_record_is_saved_under_a_path():
    for path in WRONG:
        if not isinstance(path, str):
            with pytest.raises(RooflineError):
                save_record(RECORD, path)
