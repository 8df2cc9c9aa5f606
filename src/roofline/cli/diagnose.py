"""`roofline diagnose`: what a run was bound by, what it lost, what would help, and which conclusions would be wrong."""

from collections.abc import Sequence
from typing import Annotated, Any

from roofline.catalog import is_known_model
from roofline.cli import options as given
from roofline.cli.machines import find_machine
from roofline.cli.printing import Column, show, show_json, show_table
from roofline.cli.reading import Argument, Command, Given
from roofline.cli.wording import in_our_words
from roofline.deployment.options import ALL, OPTIONS
from roofline.diagnose import Diagnosis
from roofline.diagnose import diagnose as find_diagnosis
from roofline.diagnose.report import write_report
from roofline.diagnose.sources import kind_of
from roofline.errors import InvalidValueError, RooflineError, quoted
from roofline.measured import Comparison
from roofline.model import Model
from roofline.names import local_path
from roofline.units import show_time

_COLUMNS = (
    Column("time", right=False),
    Column("measured"),
    Column("floor"),
    Column("estimate"),
    Column("at this load", rank=2),
    Column("× floor"),
    Column("× estimate"),
    Column("what", right=False, rank=1),
)


@given.takes_deployment(ALL)
def diagnose(
    file: Annotated[
        str | None,
        Given(
            "What happened, of whatever kind: a client's result, a trace, a monitor's recording, the log of an engine's start, a table of steps.",
            positional=True,
        ),
    ] = None,
    model: Annotated[
        str | None, Given("What ran, if the file does not say it: a catalogue name or the path of a config.json.", positional=True)
    ] = None,
    hardware: Annotated[
        str | None, Given("On which machine, if the file does not say it; without MODEL too, or as --hardware WORD.", positional=True)
    ] = None,
    *,
    url: Annotated[str | None, Given("In place of FILE: a running engine, whose metrics are read for some seconds.")] = None,
    trace: Annotated[str | None, Given("In place of FILE: a trace of torch.profiler.")] = None,
    then: Annotated[str | None, Given("A second page of metrics of an engine, of which FILE is the first.")] = None,
    seconds: Annotated[
        float | None, Given("How long to watch the engine at --url, 10 if not given; or the time between two pages.")
    ] = None,
    monitor: Annotated[
        str | None,
        Given("Counters of the devices while it ran: a recording of a monitor, nvidia-smi or amd-smi, or a page of dcgm-exporter."),
    ] = None,
    busy: Annotated[float | None, Given("Share of the time in which a kernel ran: GPU-Util divided by 100.")] = None,
    serving_batch: Annotated[int | None, Given("Sequences of a step in the service that the benchmark stands for.")] = None,
    capture: Annotated[str | None, Given("The trace of the capture of the CUDA graph that the steps of a trace replay.")] = None,
    run: Annotated[int | None, Given("Which run of a file that holds several; the first is 0.")] = None,
    batch: Annotated[float | None, Given("Sequences of a decode step of one replica, if it is not to be derived.")] = None,
    context: Annotated[float | None, Given("Tokens in the cache of each, if the file does not say it.")] = None,
    prompt: Annotated[float | None, Given("Tokens of a prompt, likewise.")] = None,
    output: Annotated[float | None, Given("Tokens of an answer, likewise.")] = None,
    cached: Annotated[float | None, Given("Tokens of each prompt that a prefix cache had.")] = None,
    accepted: Annotated[float | None, Given("Tokens that a step yields for a sequence under speculation.")] = None,
    drafts: Annotated[int | None, Given("Drafted tokens that a step verifies for a sequence.")] = None,
    replicas: Annotated[int | None, Given("Replicas that share the requests evenly.")] = None,
    sequences: Annotated[int | None, Given("Most sequences that run at a time.")] = None,
    step_tokens: Annotated[int | None, Given("Most tokens of a step.")] = None,
    kv_blocks: Annotated[int | None, Given("Blocks of the cache.")] = None,
    unit: Annotated[str | None, Given("Unit of the times of a table of steps, s, ms, us or ns, whatever their column is called.")] = None,
    columns: Annotated[
        tuple[str, ...], Given("What a column of a table is where its name does not tell: T=step_ms, joined by commas.", several=True)
    ] = (),
    engine: Annotated[str | None, Given("Whose rules and kernels: vllm, sglang or trtllm; what the file says, else vllm.")] = None,
    calibration: given.Calibration = None,
    eager: given.Eager = False,
    interval: given.Interval = 0.8,
    report: Annotated[str | None, Given("Also write the report on one page to this file: .html or .md.")] = None,
    json: given.Json = False,
    **options: Any,
) -> None:
    """Say what a run was bound by, phase by phase, what it lost, what would help, and which conclusions would be wrong.

    What FILE is its content tells. Measured times are printed beside floors and estimates first. Without MODEL and HARDWARE the file has to name them.
    """
    source, model, hardware = _source(file, model, hardware, url, trace)
    if model is not None and hardware is None and _is_machine(model):
        model, hardware = None, model
    told: dict[str, Any] = {
        "monitor": monitor, "busy": busy, "serving_batch": serving_batch, "seconds": seconds, "capture": capture, "run": run, "batch": batch,
        "context": context, "prompt": prompt, "output": output, "cached": cached, "accepted": accepted, "drafts": drafts, "replicas": replicas,
        "sequences": sequences, "step_tokens": step_tokens, "kv_blocks": kv_blocks, "engine": engine, "unit": unit,
        "columns": dict(map(given.pair, columns)) or None,
    }  # fmt: skip
    machine = None if hardware is None else find_machine(hardware)
    changed = {name: value for name, value in options.items() if value != OPTIONS[name].default}
    rests_on: dict[str, Any] = {"calibration": calibration, "cuda_graph": not eager, "interval": interval}
    found = find_diagnosis([source, then] if then is not None else source, model, machine, **told, **rests_on, **changed)
    arguments = Command.of("diagnose", diagnose).arguments
    if report is not None:
        write_report(found, report, lambda text: in_our_words(text, arguments))
    if json:
        show_json(found.to_dict())
        return
    _show(found, arguments)
    if report is not None:
        show(f"  report: {report}")


def _source(
    file: str | None, model: str | None, hardware: str | None, url: str | None, trace: str | None
) -> tuple[str, str | None, str | None]:
    """Return what to diagnose, and the words that name model and machine: without FILE the first word is the model."""
    instead = url if trace is None else trace
    if url is not None and trace is not None:
        raise InvalidValueError("--url and --trace are given; give one of them.")
    if instead is None:
        if file is None:
            raise InvalidValueError("diagnose needs FILE, --url or --trace; see 'roofline diagnose --help'.")
        return file, model, hardware
    if trace is not None and kind_of(trace) != "trace":
        raise InvalidValueError(f"{quoted(trace)} is no trace of torch.profiler; as FILE its kind is found by its content.")
    if url is not None and not url.startswith(("http://", "https://")):
        raise InvalidValueError(f"--url is {quoted(url)}; it begins with http:// or https://.")
    if file is None:
        return instead, model, hardware
    if hardware is not None and model is not None:
        raise InvalidValueError(f"{quoted(file)} is one word too many: with {'--url' if url else '--trace'} there is no FILE.")
    if local_path(file).is_file():
        _check_model(file, "--url" if trace is None else "--trace")
    return (instead, file, hardware) if model is None else (instead, file, model)


def _is_machine(word: str) -> bool:
    """Return whether a word is a machine and no model."""
    if is_known_model(word):
        return False
    try:
        find_machine(word)
    except RooflineError:
        return False
    return True


def _check_model(word: str, instead: str) -> None:
    """Raise if a file that stands where a model does is none."""
    if _is_machine(word):
        return
    try:
        Model.load(word)
    except RooflineError as error:
        raise InvalidValueError(f"{quoted(word)} is read as MODEL, since with {instead} there is no FILE: {error}") from None


def _show(found: Diagnosis, arguments: Sequence[Argument]) -> None:
    """Print times beside floors and estimates, then the diagnosis."""
    if isinstance(found.rests_on, Comparison):
        show_table(_COLUMNS, [_row(time) for time in found.rests_on.times])
        show()
    show(in_our_words(str(found), arguments))


def _row(time: Any) -> tuple[str, ...]:
    shown = [show_time(value) if value is not None else "" for value in (time.measured_s, time.floor_s, time.estimate_s, time.served_s)]
    ratios = [f"{value:.2f}" if value is not None else "" for value in (time.over_floor, time.over_estimate)]
    return (time.name, *shown, *ratios, time.what)
