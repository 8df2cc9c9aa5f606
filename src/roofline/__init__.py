"""How fast a transformer can run on given hardware, how fast it should, and why it runs slower.

>>> from roofline import decode_floor
>>> round(decode_floor("70B", memory_bandwidth=3e12).time_s * 1e3, 2)
46.67
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from roofline.batching import (
        CriticalBatch,
        FreeRows,
        Journey,
        Regime,
        context_without_compute,
        critical_batch,
        free_rows,
        journey,
    )
    from roofline.bounds import attainable, ridge_point
    from roofline.calibration import calibrate
    from roofline.capacity import MemoryLimits, Resident, fewest_devices, max_batch, max_context, memory_limits, resident
    from roofline.catalog import check_model, list_models
    from roofline.deployment import Deployment
    from roofline.efficiency import Utilization, mbu, mfu, utilization
    from roofline.errors import (
        CalibrationError,
        CallError,
        ConfigError,
        InvalidValueError,
        MissingDependencyError,
        RooflineError,
        SpecError,
        UnknownNameError,
        UnknownOptionError,
        UnsupportedModelError,
    )
    from roofline.estimate import Estimate, KernelEstimate, decode_estimate, kernel_estimate, prefill_estimate, step_estimate
    from roofline.explanation import explain
    from roofline.fitting import record_from_tables
    from roofline.floors import (
        Floor,
        KernelFloor,
        attention_floor,
        collective_floor,
        decode_floor,
        experts_floor,
        latent_attention_floor,
        matmul_floor,
        prefill_floor,
        rowwise_floor,
        step_floor,
    )
    from roofline.formats import FORMATS, Format
    from roofline.hardware import Ceiling, Hardware
    from roofline.kernel_tables import TableCheck, check_table
    from roofline.measured import (
        ServingMeasurement,
        compare,
        compare_steps,
        read_measurement,
        read_measurements,
        read_metrics,
        watch_engine,
    )
    from roofline.model import Model
    from roofline.monitor import BottleneckMonitor
    from roofline.optimizations import Lever, Levers, levers
    from roofline.planner import Plan, plan
    from roofline.plotting import plot_batch, plot_breakdown, plot_roofline
    from roofline.profile import profile_torch, profiling, read_trace
    from roofline.records import CalibrationRecord, list_records, load_record
    from roofline.requests import SLO, Arrivals, Lengths, RequestTimes, Workload
    from roofline.saved import ask_again
    from roofline.serving import (
        MaxRate,
        Rules,
        ServiceFit,
        ServingEstimate,
        Simulation,
        fit_service,
        load_service_fit,
        max_rate,
        rules_of,
        serving_estimate,
        simulate,
    )
    from roofline.step import Step, expected_tokens
    from roofline.step_time import StepTable, StepTime
    from roofline.sweeps import Sweep, sweep

    __version__: str

_HOMES = {
    "batching": "CriticalBatch FreeRows Journey Regime context_without_compute critical_batch free_rows journey",
    "bounds": "attainable ridge_point",
    "calibration": "calibrate",
    "capacity": "MemoryLimits Resident fewest_devices max_batch max_context memory_limits resident",
    "catalog": "check_model list_models",
    "deployment": "Deployment",
    "efficiency": "Utilization mbu mfu utilization",
    "errors": "CalibrationError CallError ConfigError InvalidValueError MissingDependencyError RooflineError SpecError UnknownNameError UnknownOptionError UnsupportedModelError",
    "estimate": "Estimate KernelEstimate decode_estimate kernel_estimate prefill_estimate step_estimate",
    "fitting": "record_from_tables",
    "explanation": "explain",
    "floors": "Floor KernelFloor attention_floor collective_floor decode_floor experts_floor latent_attention_floor matmul_floor prefill_floor "
    "rowwise_floor step_floor",
    "formats": "FORMATS Format",
    "hardware": "Ceiling Hardware",
    "kernel_tables": "TableCheck check_table",
    "measured": "ServingMeasurement compare compare_steps read_measurement read_measurements read_metrics watch_engine",
    "model": "Model",
    "monitor": "BottleneckMonitor",
    "optimizations": "Lever Levers levers",
    "plotting": "plot_batch plot_breakdown plot_roofline",
    "profile": "profile_torch profiling read_trace",
    "records": "CalibrationRecord list_records load_record",
    "planner": "Plan plan",
    "requests": "Arrivals Lengths RequestTimes SLO Workload",
    "saved": "ask_again",
    "serving": "MaxRate Rules ServiceFit ServingEstimate Simulation fit_service load_service_fit max_rate rules_of serving_estimate simulate",
    "step": "Step expected_tokens",
    "step_time": "StepTable StepTime",
    "sweeps": "Sweep sweep",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for, so that `import roofline` itself stays light."""
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("roofline")
    elif name in _HOME_OF:
        value = getattr(import_module(f"roofline.{_HOME_OF[name]}"), name)
    else:
        raise AttributeError(f"module 'roofline' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "FORMATS",
    "SLO",
    "Arrivals",
    "BottleneckMonitor",
    "CalibrationError",
    "CalibrationRecord",
    "CallError",
    "Ceiling",
    "ConfigError",
    "CriticalBatch",
    "Deployment",
    "Estimate",
    "Floor",
    "Format",
    "FreeRows",
    "Hardware",
    "InvalidValueError",
    "Journey",
    "KernelEstimate",
    "KernelFloor",
    "Lengths",
    "Lever",
    "Levers",
    "MaxRate",
    "MemoryLimits",
    "MissingDependencyError",
    "Model",
    "Plan",
    "Regime",
    "RequestTimes",
    "Resident",
    "RooflineError",
    "Rules",
    "ServiceFit",
    "ServingEstimate",
    "ServingMeasurement",
    "Simulation",
    "SpecError",
    "Step",
    "StepTable",
    "StepTime",
    "Sweep",
    "TableCheck",
    "UnknownNameError",
    "UnknownOptionError",
    "UnsupportedModelError",
    "Utilization",
    "Workload",
    "__version__",
    "ask_again",
    "attainable",
    "attention_floor",
    "calibrate",
    "check_model",
    "check_table",
    "collective_floor",
    "compare",
    "compare_steps",
    "context_without_compute",
    "critical_batch",
    "decode_estimate",
    "decode_floor",
    "expected_tokens",
    "experts_floor",
    "explain",
    "fewest_devices",
    "fit_service",
    "free_rows",
    "journey",
    "kernel_estimate",
    "latent_attention_floor",
    "levers",
    "list_models",
    "list_records",
    "load_record",
    "load_service_fit",
    "matmul_floor",
    "max_batch",
    "max_context",
    "max_rate",
    "mbu",
    "memory_limits",
    "mfu",
    "plan",
    "plot_batch",
    "plot_breakdown",
    "plot_roofline",
    "prefill_estimate",
    "prefill_floor",
    "profile_torch",
    "profiling",
    "read_measurement",
    "read_measurements",
    "read_metrics",
    "read_trace",
    "record_from_tables",
    "resident",
    "ridge_point",
    "rowwise_floor",
    "rules_of",
    "serving_estimate",
    "simulate",
    "step_estimate",
    "step_floor",
    "sweep",
    "utilization",
    "watch_engine",
]
