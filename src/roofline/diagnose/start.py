"""The diagnosis of the log of an engine's start: what runs and what fits, and that nothing was measured."""

from collections.abc import Mapping
from typing import Any

from roofline.diagnose.result import Diagnosis
from roofline.errors import RooflineError
from roofline.measured import EngineLog, LoggedCache, read_engine_log

_UNTOLD = ("what binds prefill and decode: the log of a start has no times; give a benchmark, or two pages of the engine's metrics",)
_APART = 0.05  # of the engine's own count


def diagnose_log(source: Any, model: Any, hardware: Any, options: Mapping[str, Any]) -> Diagnosis:
    """Diagnose the log of a start: the cache as the engine counts it, beside ours."""
    log = source if isinstance(source, EngineLog) else read_engine_log(source)
    if model is not None or options:  # what the caller says must be possible, whatever the log says
        log.deployment(hardware, model=model, **options)
    said = [line.strip() for line in log.summary()[1:] if not line.lstrip().startswith("note:")]
    unknown = list(_UNTOLD)
    basis: EngineLog | LoggedCache = log
    try:
        more = {} if hardware is None else {"hardware": hardware}
        basis = log.cache(model=model, **{**more, **options})
    except RooflineError as error:
        unknown.append(f"what should fit: {str(error).rstrip('.')}")
    else:
        said += [line.strip() for line in basis.summary()[1:]]
        logged = basis.logged_sequences
        if logged is not None and abs(logged / basis.booked_sequences - 1) > _APART:
            said.append(f"the two differ by {logged / basis.booked_sequences - 1:+.0%}: check model, degrees and the format of the cache")
    return Diagnosis("log", log.summary()[0], (), (), tuple(said), tuple(unknown), basis, notes=log.notes)
