"""Starting a calibration: checks of the arguments and the file, the device, its plan and its machine."""

import os
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile

from roofline.calibration.devices import Device, load_torch, open_device
from roofline.calibration.plan import PLANS, check_ranks
from roofline.calibration.provenance import as_path
from roofline.calibration.session import CalibrationSession, Progress, check_progress
from roofline.deployment.spelling import checks_keywords
from roofline.errors import CalibrationError, MissingDependencyError, install, quoted
from roofline.hardware import Hardware
from roofline.hardware.recognition import recognize
from roofline.names import unknown_name
from roofline.records import CalibrationRecord
from roofline.telemetry import open_telemeter

_PROBE_BYTES = 2**18  # more than the record of a quick plan


@checks_keywords
def calibrate(
    device: str,
    output: "str | os.PathLike[str]",
    *,
    plan: str = "quick",
    hardware: Hardware | str | Path | None = None,
    resume: bool = True,
    ranks: int | None = None,
    progress: Progress | None = None,
) -> CalibrationRecord:
    """Measure a device, fit the samples, and write a calibration record.

    The record is written after every sample, so that an interrupted run is resumed by a call with the same file.

    Parameters
    ----------
    device : str
        ``"cpu"``, ``"cuda:0"``, … [-].
    output : str or path
        The record's file [-].
    plan : {"quick", "thorough"}, optional
        Measures within a minute, or within ten minutes, with several times as many points [-].
    hardware : Hardware, str or Path, optional
        The machine whose datasheet shares refer to; by default the one with the device's name, or else the best measured rates [-].
    resume : bool, optional
        Whether to resume the record in the file; otherwise it is replaced [-].
    ranks : int, optional
        Number of ranks of the all-reduce benchmark; 1 disables it. The default is one per GPU; on a CPU the benchmark is skipped. Ranks are
        spawned processes, so a script needs the usual ``if __name__ == "__main__":`` [-].
    progress : callable, optional
        Called as ``progress(done, points, point)`` before each point, and with None before the fit [-].

    Returns
    -------
    CalibrationRecord
        The finished record [-].

    Raises
    ------
    CalibrationError
        If there is no such device, there are more ranks than GPUs or cores, the file cannot be written or holds a record of
        another device, plan or software, or nothing could be measured.
    MissingDependencyError
        If torch or scipy is not installed.
    InvalidValueError, UnknownNameError
        If there is no such plan or machine, `ranks` is not a count, or `progress` cannot be called.

    Notes
    -----
    Points that fail, for lack of memory or time or any other reason, are skipped; the next run with the same file retries them. The record's
    conditions name them, as well as throttled clocks, other processes on the device, rates above the machine's datasheet, and a device
    name that does not match the machine. If nothing is left to measure, a finished record is returned unchanged, or fitted again
    if the rates of `hardware` have changed. No setting of the device is ever changed.
    """
    if not isinstance(plan, str) or plan not in PLANS:
        raise unknown_name("plan", str(plan), PLANS)
    machine = None if hardware is None else Hardware.load(hardware)
    ranks = None if ranks is None else check_ranks(ranks)
    check_progress(progress)
    path = _check_output(output)
    if find_spec("scipy") is None:
        raise MissingDependencyError(f"fitting needs scipy: {install('calibrate')}.")
    found = open_device(device)
    telemeter = open_telemeter(found.kind, found.index, uuid=_uuid(found))
    try:
        session = CalibrationSession(
            found,
            PLANS[plan].points(found),
            telemeter,
            path,
            plan=plan,
            hardware=machine or recognize(found.name),
            resume=resume,
            ranks=_count_ranks(found, ranks),
        )
        return session.run(progress, limit_s=PLANS[plan].limit_s)
    finally:
        telemeter.close()


def _check_output(output: "str | os.PathLike[str]") -> Path:
    """Return the path of a record's file, after a test that files can be written next to it, before anything is measured."""
    path = as_path(output)
    try:
        target = path.resolve()
        taken = target.exists() and not target.is_file()
        folder, allowed = target.parent.is_dir(), not target.exists() or os.access(target, os.W_OK)
    except (ValueError, OSError, RuntimeError) as error:
        raise CalibrationError(f"{quoted(output)} is no path for a record: {getattr(error, 'strerror', None) or error}.") from None
    if taken:
        raise CalibrationError(f"{path}: cannot be written: it is {'a folder' if target.is_dir() else 'no plain file'}.")
    if not folder:
        raise CalibrationError(f"{path}: cannot be written: there is no folder {target.parent}.")
    if not allowed:
        raise CalibrationError(f"{path}: cannot be written: it is read-only.")
    try:
        with TemporaryFile(dir=target.parent) as probe:
            probe.write(bytes(_PROBE_BYTES))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise CalibrationError(f"{path}: cannot be written: {error.strerror or error}.") from None
    return path


def _count_ranks(device: Device, ranks: int | None) -> int:
    """Return the number of ranks: the one given, or one per GPU."""
    if device.kind == "cuda":
        gpus = int(load_torch().cuda.device_count())
        there, most = "is 1 GPU" if gpus == 1 else f"are {gpus} GPUs", gpus
    else:
        cores = int(device.properties.get("cores", 1))
        there, most = "is 1 core" if cores == 1 else f"are {cores} cores", max(cores, 2)
    if ranks is not None and ranks > most:
        raise CalibrationError(f"ranks is {ranks}, and there {there}; the all-reduce benchmark can have at most {most}.")
    usual = most if device.kind == "cuda" else 1
    return usual if ranks is None else ranks


def _uuid(device: Device) -> str | None:
    """Return the UUID by which NVML finds the device, since its numbering may differ from torch's."""
    if device.kind != "cuda":
        return None
    uuid = getattr(load_torch().cuda.get_device_properties(device.index), "uuid", None)
    return None if uuid is None else str(uuid)
