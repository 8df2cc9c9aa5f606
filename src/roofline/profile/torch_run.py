"""Torch code profiled while it runs: `profile_torch` for a function, `profiling` for a block."""

import gzip
import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from roofline.calibration.devices import load_torch, open_device
from roofline.calls import checks_call
from roofline.errors import InvalidValueError, quoted
from roofline.hardware import Hardware
from roofline.profile.events import MODULE, PHASE, WINDOW, EventReader
from roofline.profile.operators import Cost
from roofline.profile.result import Profile
from roofline.units import check_flag, whole_number


@dataclass
class TorchRun:
    """A block of torch code that is profiled, see :func:`profiling`.

    Parameters
    ----------
    hardware : Hardware, optional
        The machine whose roofs operators are put beside [-].
    """

    hardware: Hardware | None = None
    _profile: Profile | None = field(default=None, repr=False)
    _inside: str | None = field(default=None, repr=False)
    _left_by: str | None = field(default=None, repr=False)

    @property
    def profile(self) -> Profile:
        """The profile, once the block has ended."""
        if self._left_by is not None:
            raise InvalidValueError(f"the block that is profiled was left by {self._left_by}, so there is no profile of it.")
        if self._profile is None:
            raise InvalidValueError("the block that is profiled has not ended: ask for its profile after it.")
        return self._profile

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Give a name to what runs inside, such as ``"prefill"`` or ``"decode"``; parts of one name are one phase.

        Parameters
        ----------
        name : str
            The phase [-].

        Yields
        ------
        None
            Nothing [-].

        Raises
        ------
        InvalidValueError
            If the name is empty or no text, or the phase is inside of another one.
        """
        if not isinstance(name, str) or not name.strip():
            raise InvalidValueError(f"name is {quoted(name)}; a phase has a name, such as 'prefill' or 'decode'.")
        if self._inside is not None:
            raise InvalidValueError(f"phase {quoted(name)} begins inside of phase {quoted(self._inside)}; phases do not nest.")
        torch = load_torch()
        self._inside = name
        _wait(torch)
        try:
            with torch.profiler.record_function(f"{PHASE}{name}"):
                yield
                _wait(torch)
        finally:
            self._inside = None


@checks_call
@contextmanager
def profiling(
    *, hardware: Any = None, modules: bool = True, trace: Any = None, operators: Mapping[str, Cost] | None = None
) -> Iterator[TorchRun]:
    """Profile the torch code of a block: each operator's FLOP, bytes, time, and share of its roof.

    Parameters
    ----------
    hardware : Hardware, str or Path, optional
        The machine that it runs on, whose roofs operators are put beside; without one there are intensities and achieved rates only [-].
    modules : bool, optional
        Whether operators are told apart by the module that calls them [-].
    trace : str or path, optional
        Where to keep the trace of torch's profiler, compressed if it ends in ``.gz`` [-].

    operators : mapping of str to callable, optional
        Cost functions of operators of your own, by name: each is given a :class:`Call` and returns a :class:`roofline.ops.Op` [-].

    Yields
    ------
    TorchRun
        Has ``phase(name)`` for parts of the block, and ``profile`` after its end [-].

    Raises
    ------
    MissingDependencyError
        If torch is not installed.
    UnknownNameError, InvalidValueError
        If there is no such machine, torch's profiler is running already, `trace` is no path of a file, or `operators` has no functions.

    Notes
    -----
    Amounts come from the shapes of every call: FLOP of products as ``torch.utils.flop_counter.FlopCounterMode`` counts them, but attention
    under a causal mask has the visible pairs only, not the whole square. Bytes are those of a cold cache: every input read once, every output
    written once. On a GPU times are those of kernels, on a CPU those of the calls. Run everything once before the block, so that it does not hold
    what happens only the first time.
    """
    machine = None if hardware is None else Hardware.load(hardware)
    modules, kept = check_flag("modules", modules), None if trace is None else _file(trace)
    if not isinstance(operators or {}, Mapping) or not all(callable(cost) for cost in (operators or {}).values()):
        raise InvalidValueError(
            f"operators is {quoted(operators)}; it must be a mapping of names of operators to functions of their costs."
        )
    torch = load_torch()
    if torch.autograd._profiler_enabled():
        raise InvalidValueError("torch's profiler is running already; one profile cannot be made inside of another.")
    activities = [torch.profiler.ProfilerActivity.CPU]
    if torch.cuda.is_available():
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    run = TorchRun(machine)
    _wait(torch)
    with torch.profiler.profile(activities=activities, record_shapes=True) as recorded, ExitStack() as stack:
        if modules:
            stack.enter_context(_named_modules(torch))
        stack.enter_context(torch.profiler.record_function(WINDOW))
        try:
            yield run
        except BaseException as error:
            run._left_by = type(error).__name__
            raise
        _wait(torch)
    run._profile = _read(torch, recorded, EventReader(machine, operators=operators or {}), kept)


@checks_call
def profile_torch(
    function: Callable[..., Any],
    *args: Any,
    hardware: Any = None,
    phase: str | None = None,
    warmup: int = 1,
    repeat: int = 1,
    modules: bool = True,
    trace: Any = None,
    operators: Mapping[str, Cost] | None = None,
) -> Profile:
    """Profile a function of torch code: each operator's FLOP, bytes, time, and share of its roof.

    Parameters
    ----------
    function : callable
        What is profiled; put keywords into a ``lambda`` [-].
    *args : optional
        What it is called with [-].
    hardware : Hardware, str or Path, optional
        As for :func:`profiling` [-].
    phase : str, optional
        A name for all of it, such as ``"decode"`` [-].
    warmup : int, optional
        Calls before, which are not profiled [-].
    repeat : int, optional
        Calls that are profiled, all together [-].
    modules : bool, optional
        As for :func:`profiling` [-].
    trace : str or path, optional
        As for :func:`profiling` [-].
    operators : mapping of str to callable, optional
        As for :func:`profiling` [-].

    Returns
    -------
    Profile
        Its operators [-].

    Raises
    ------
    MissingDependencyError
        If torch is not installed.
    InvalidValueError
        If the function cannot be called, a count is not one, or `trace` is no path of a file.
    """
    if not callable(function):
        raise InvalidValueError(f"function is {quoted(function)}; it must be something to call, such as lambda: model(tokens).")
    warmup, repeat = whole_number("warmup", warmup), whole_number("repeat", repeat, minimum=1)
    for _ in range(warmup):
        function(*args)
    with profiling(hardware=hardware, modules=modules, trace=trace, operators=operators) as run, ExitStack() as stack:
        if phase is not None:
            stack.enter_context(run.phase(phase))
        for _ in range(repeat):
            function(*args)
    return run.profile


def _wait(torch: Any) -> None:
    """Wait until GPUs have done what was launched, so that it ends inside of the part that launched it."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


@contextmanager
def _named_modules(torch: Any) -> Iterator[None]:
    """Put an annotation with its path around everything that a module runs."""
    names: dict[int, str] = {}
    roots: list[Any] = []  # kept, so that no other module gets the id of one of them
    open_calls = threading.local()
    # a tenth of the cost of record_function, which takes longer than a small operator
    annotate = getattr(torch._C._profiler, "_RecordFunctionFast", torch.profiler.record_function)

    def enter(module: Any, _inputs: Any) -> None:
        calls = open_calls.__dict__.setdefault("stack", [])
        if id(module) not in names:
            prefix = f"{calls[-1][0]}.{type(module).__name__}" if calls else ""
            names.update({id(part): ".".join(filter(None, (prefix, path))) for path, part in module.named_modules()})
            roots.append(module)
        annotation = annotate(f"{MODULE}{names[id(module)]}")
        annotation.__enter__()
        calls.append((names[id(module)], annotation))

    def leave(_module: Any, _inputs: Any, _output: Any) -> None:
        open_calls.stack.pop()[1].__exit__(None, None, None)

    hooks = torch.nn.modules.module
    handles = (hooks.register_module_forward_pre_hook(enter), hooks.register_module_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _file(trace: Any) -> Path:
    """Return the path of a trace, after a test that there is a folder for it, before anything is profiled."""
    path = Path(trace).expanduser() if isinstance(trace, (str, os.PathLike)) and str(trace) else None
    if path is None or path.is_dir() or not path.parent.is_dir():
        raise InvalidValueError(f"trace is {quoted(trace)}; it must be the path of a file in a folder that exists, such as trace.json.")
    return path


def _read(torch: Any, recorded: Any, reader: EventReader, trace: Path | None) -> Profile:
    """Return the profile of what torch's profiler recorded, by way of the trace that it writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        recorded.export_chrome_trace(str(path))
        text = path.read_bytes()
    if trace is not None:
        trace.write_bytes(gzip.compress(text) if trace.suffix == ".gz" else text)
    events = json.loads(text)["traceEvents"]
    on_gpu = any(event.get("cat") == "kernel" for event in events)
    device = open_device("cuda" if on_gpu else "cpu").name
    if on_gpu and torch.get_float32_matmul_precision() != "highest":
        reader.fp32_products = "tf32"
    for event in events:
        reader.add(event)
    return reader.profile("torch.profiler", device)
