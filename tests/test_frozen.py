"""What is shared cannot be changed: every attribute, mapping, list and array that public objects hand out twice is frozen."""

import inspect
import pickle
import subprocess
import sys
import types

import numpy as np
import pytest

import roofline
from roofline import (
    FORMATS,
    Deployment,
    Hardware,
    Model,
    Step,
    StepTime,
    critical_batch,
    decode_estimate,
    decode_floor,
    free_rows,
    journey,
    kernel_estimate,
    levers,
    list_models,
    list_records,
    load_record,
    matmul_floor,
    prefill_floor,
    resident,
    sweep,
)
from roofline.formats import Format
from roofline.frozen import FrozenDict
from roofline.model.memo import Memo

B = np.array([1, 8, 64])
ROOMS = ("hardware", "kernels", "ops", "records", "formats", "batching", "floors", "step", "deployment.options")


def constants():
    """The data that rooms make public."""
    for room in ROOMS:
        module = __import__(f"roofline.{room}", fromlist=["x"])
        for name in getattr(module, "__all__", ["OPTIONS"]):
            if not callable(thing := getattr(module, name)):
                yield f"{room}.{name}", thing


MAKE = {
    "a machine": lambda: Hardware.load("h100-sxm"),
    "a calibrated machine": lambda: Hardware.load("h100-sxm").calibrated(),
    "a model": lambda: Model.load("mixtral-8x7b"),
    "a record": lambda: load_record(list_records()[0]),
    "formats": lambda: FORMATS,
    "a deployment": lambda: Deployment("llama-3-8b", "h100-sxm", weights={"*": "fp8"}),
    "a routed deployment": lambda: Deployment("mixtral-8x7b", "h100-sxm", routing=[0.3, *[0.1] * 7]),
    "a step": lambda: Step.decode(batch=B) + Step.prefill(B * 8, cached=B),
    "a floor": lambda: decode_floor("mixtral-8x7b", "h100-sxm"),
    "floors": lambda: decode_floor("llama-3-8b", "h100-sxm", batch=B, context=B),
    "floors of prefills": lambda: prefill_floor("llama-3-8b", "h100-sxm", prompt=B),
    "floors of kernels": lambda: matmul_floor(B, 8, 8, "h100-sxm", format="bf16"),
    "estimates": lambda: decode_estimate("llama-3-8b", "h100-sxm", batch=B),
    "estimates of kernels": lambda: kernel_estimate(matmul_floor(B, 8, 8, "h100-sxm", format="bf16")),
    "resident bytes": lambda: resident("llama-3-8b", "h100-sxm", batch=B),
    "a sweep": lambda: sweep("llama-3-8b", "h100-sxm", batch=B, context=B),
    "a journey": lambda: journey("llama-3-8b", "h100-sxm"),
    "a critical batch": lambda: critical_batch("llama-3-8b", "h100-sxm"),
    "free rows": lambda: free_rows("llama-3-8b", "h100-sxm"),
    "levers": lambda: levers("llama-3-8b", "h100-sxm"),
    "step times": lambda: StepTime(Deployment("llama-3-8b", "h100-sxm")),
    "a table of step times": lambda: StepTime(Deployment("llama-3-8b", "h100-sxm")).table(batch=B, context=B),
    "constants of rooms": lambda: dict(constants()),
}
PLAIN = (int, float, complex, str, bytes, type(None), np.generic, type, types.ModuleType, types.FunctionType, types.MethodType)


def can_set(thing, name, value):
    try:
        setattr(thing, name, value)
    except (AttributeError, TypeError):
        return False
    return True


def can_delete(thing, name):
    value = getattr(thing, name)
    try:
        delattr(thing, name)
    except (AttributeError, TypeError):
        return False
    object.__setattr__(thing, name, value)
    return True


def ways_to_change(thing):
    """Yield in which ways an object can be changed; the change is one to what is there already, or is undone."""
    if isinstance(thing, np.ndarray):
        try:
            thing[...] = thing.copy()
        except ValueError:
            pass
        else:
            yield "written in place"
        if thing.flags.writeable:
            yield "written"
    elif isinstance(thing, (list, set, bytearray)):
        yield f"a {type(thing).__name__}"
    elif isinstance(thing, dict):
        tries = {
            "item assignment": lambda: thing.__setitem__("no such key", 1),
            "update": lambda: thing.update({"no such key": 1}),
            "setdefault": lambda: thing.setdefault("no such key", 1),
            "|=": lambda: thing.__ior__({"no such key": 1}),
            "pop": lambda: thing.pop("no such key", None),
            "clear": lambda: thing.clear() if not thing else thing.popitem(),
            "deletion": lambda: thing.__delitem__(next(iter(thing), "no such key")),
        }
        for how, attempt in tries.items():
            try:
                attempt()
            except TypeError:
                continue
            except KeyError:
                pass
            yield how
            return


def explore(path, thing, seen, found, depth=0):
    """Collect what can be changed below an object, along everything that it hands out twice as the same object."""
    if isinstance(thing, PLAIN) or id(thing) in seen or depth > 12:
        return
    seen[id(thing)] = thing
    found += [f"{path}: {how}" for how in ways_to_change(thing)]
    if isinstance(thing, (dict, types.MappingProxyType)):
        for key, value in list(thing.items()):
            explore(f"{path}[{key!r:.30}]", value, seen, found, depth + 1)
    elif isinstance(thing, (tuple, list, frozenset)):
        for place, value in enumerate(list(thing)[:20]):
            explore(f"{path}[{place}]", value, seen, found, depth + 1)
    if not type(thing).__module__.startswith("roofline"):
        return
    foreign = {name for base in type(thing).__mro__ if not base.__module__.startswith("roofline") for name in vars(base)}
    for name in dir(thing):
        if name[0] == "_" or name in foreign:
            continue
        try:
            value, again = getattr(thing, name), getattr(thing, name)
        except Exception:  # what an object does not have cannot be changed either
            continue
        if inspect.isroutine(value):
            continue
        if can_set(thing, name, value):
            found.append(f"{path}.{name}: set")
        if can_delete(thing, name):
            found.append(f"{path}.{name}: deleted")
        if value is again:
            explore(f"{path}.{name}", value, seen, found, depth + 1)


@pytest.mark.parametrize("name", MAKE)
def test_nothing_that_is_handed_out_can_be_changed(name):
    before = digest()
    seen, found = {}, []
    made = MAKE[name]()
    explore(name, made, seen, found)
    found = [what for what in found if not (name == "constants of rooms" and what.startswith(f"{name}: "))]  # a dict of this test's own
    assert not found, f"{len(found)} ways, such as {found[:5]}"
    assert len(seen) > 1
    assert digest() == before


def digest():
    """Numbers that rest on everything that is shared."""
    floor = decode_floor("llama-3-8b", "h100-sxm", batch=8, context=1000)
    return floor.time_s, str(floor), decode_estimate("llama-3-8b", "h100-sxm", batch=8).time_s, float(FORMATS["mxfp4"].bits)


def test_explorer_finds_what_can_be_changed():
    """The explorer itself: a plain object, array and dict are found."""

    class Open:
        def __init__(self):
            self.array, self.table = np.ones(3), {"a": 1}

    Open.__module__ = "roofline.test"
    found = []
    explore("open", Open(), {}, found)
    assert found == [
        "open.array: set",
        "open.array: deleted",
        "open.array: written in place",
        "open.array: written",
        "open.table: set",
        "open.table: deleted",
        "open.table: item assignment",
    ]


@pytest.mark.parametrize("field", ["memory_bandwidth", "memory_capacity", "last_level_cache", "name", "memory", "vector_peak", "invented"])
def test_a_machine_keeps_its_rates(field):
    """A bandwidth set to 1 GB/s once made all floors on that machine 3352 times longer."""
    machine = Hardware.load("h100-sxm")
    with pytest.raises(AttributeError, match="frozen"):
        setattr(machine, field, 1e9)
    assert decode_floor("70B", machine).time_s == pytest.approx(140e9 / 3.35e12, rel=0.01)


@pytest.mark.parametrize("field", ["parameters", "hidden_size", "layers", "memo", "is_anonymous"])
def test_a_model_keeps_its_shape(field):
    model = Model.load("llama-3-8b")
    with pytest.raises(AttributeError, match="frozen"):
        setattr(model, field, 1)
    assert model.parameters == 8_030_261_248  # model card of meta-llama/Meta-Llama-3-8B


def test_arrays_that_were_given_stay_the_caller_s():
    batch = np.array([1.0, 2.0])
    floor = decode_floor("llama-3-8b", "h100-sxm", batch=batch)
    before = floor.time_s.copy()
    batch[:] = 1000
    assert batch.flags.writeable
    assert floor.time_s.tolist() == before.tolist() == decode_floor("llama-3-8b", "h100-sxm", batch=[1, 2]).time_s.tolist()


def test_a_list_of_names_is_the_caller_s_own():
    list_models().clear()
    list_records().clear()
    Hardware.list().clear()
    assert all((list_models(), list_records(), Hardware.list()))


def test_times_of_steps_are_the_caller_s_own():
    """Simulators add to what they get; the next answer is another array."""
    time = StepTime(Deployment("llama-3-8b", "h100-sxm"))
    first = time([[8]], 1, 100)
    before = float(first[0])
    first += 1
    assert time([[8]], 1, 100)[0] == before


@pytest.mark.parametrize("name", ["a record", "floors", "a step", "estimates"])
def test_frozen_objects_travel_between_processes(name):
    made = MAKE[name]()
    again = pickle.loads(pickle.dumps(made))
    found = []
    explore(name, again, {}, found)
    assert [what for what in found if "written" not in what] == []  # arrays come back as the copies of their receiver
    assert str(again) == str(made)


def test_a_frozen_mapping_is_a_dict_in_all_that_reads():
    table = FrozenDict(a=1)
    assert table == {"a": 1}
    assert {**table, "b": 2} == table | {"b": 2} == {"a": 1, "b": 2}
    assert pickle.loads(pickle.dumps(table)) == table


# -------------------------------------------------------------------------------------------------------------- what is remembered


def test_a_model_remembers_a_bounded_number_of_programs():
    """A router that is measured anew at every step gives another array each time."""
    model, generator = Model.load("mixtral-8x7b").but(name="mine"), np.random.default_rng(0)
    for _ in range(300):
        popularity = generator.random(8)
        decode_floor(model, "h100-sxm", routing=(popularity / popularity.sum()).tolist())
    assert len(model.memo) <= 256
    assert decode_floor(model, "h100-sxm").time_s == decode_floor("mixtral-8x7b", "h100-sxm").time_s


def test_the_memo_forgets_what_was_not_asked_for_longest():
    memo = Memo(most=2)
    memo.keep("a", 1)
    memo.keep("b", 2)
    assert memo.find("a") == 1
    memo.keep("c", 3)
    assert (memo.find("a"), memo.find("b"), memo.find("c")) == (1, None, 3)


def test_a_process_of_its_own_sees_the_same_machine():
    """Whatever another test tried, a fresh process gives the same numbers: nothing was written to a file either."""
    code = "from roofline import decode_floor; print(repr(float(decode_floor('llama-3-8b', 'h100-sxm', batch=8, context=1000).time_s)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(out) == digest()[0]
    assert roofline.decode_floor is decode_floor


def test_attributes_of_classes_with_slots_are_refused_in_a_sentence():
    for thing in (decode_floor("8B", "h100"), decode_estimate("llama-3.1-8b", "h100"), Step.decode(), Format.load("fp8")):
        for name in ("time_s", "anything"):
            with pytest.raises(AttributeError, match="is frozen"):
                setattr(thing, name, 1)
            with pytest.raises(AttributeError, match="is frozen"):
                delattr(thing, name)
