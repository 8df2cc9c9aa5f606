"""Starting a calibration: the device, its plan, the file, and the machine whose datasheet shares refer to."""

import os
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile

from roofline.calibration.devices import Device, load_torch, open_device
from roofline.calibration.plan import PLANS, check_ranks
from roofline.calibration.provenance import as_path, recognize
from roofline.calibration.session import CalibrationSession, Progress, check_progress
from roofline.errors import CalibrationError, MissingDependencyError
from roofline.hardware import Hardware
from roofline.names import unknown_name
from roofline.records import CalibrationRecord
from roofline.telemetry import open_telemeter

_PROBE_BYTES = 2**18  # larger than the record of a quick plan


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
    """Measure a device, fit what was measured, and keep it in a file.

    The record is written after every sample, so that a run that is interrupted in any way goes on where it stopped when it is
    started again with the same file.

    Parameters
    ----------
    device : str
        ``"cpu"``, ``"cuda:0"``, … [-].
    output : str or path
        The record's file [-].
    plan : {"quick", "thorough"}, optional
        What is measured within a minute, or within ten, with several times the points [-].
    hardware : Hardware, str or Path, optional
        The machine whose datasheet shares refer to; by default the one of the device's own name, and if there is none the best
        rates that are measured stand in [-].
    resume : bool, optional
        Whether to go on with a record that is there; otherwise it is replaced [-].
    ranks : int, optional
        Processes to add arrays up over, each with a GPU of its own, or all on the CPU; all GPUs that there are if not given, and
        none on a CPU. With 1 no arrays are added up. A script that asks for it needs the usual ``if __name__ == "__main__":`` [-].
    progress : callable, optional
        Called as ``progress(done, points, point)`` before each point, and with None before the fit [-].

    Returns
    -------
    CalibrationRecord
        The finished record [-].

    Raises
    ------
    CalibrationError
        If there is no such device, or more ranks are asked for than there are GPUs or cores, the file cannot be written, it holds a
        record of another device, plan or software, or nothing could be measured.
    MissingDependencyError
        If torch or scipy is not installed.
    InvalidValueError, UnknownNameError
        If there is no such plan or machine, `ranks` is no count, or `progress` cannot be called.

    Notes
    -----
    Points that fail, for want of memory, of time or else, are left out and named in the record's conditions, as are throttled clocks and
    other processes on the device; the next run with the same file tries them again. So are rates above the machine's datasheet, and a
    device that does not bear its name. A finished record of which nothing is left to measure is returned as it is; only if `hardware` has
    other rates by now, it is fitted again. No setting of the device is ever changed.
    """
    if not isinstance(plan, str) or plan not in PLANS:
        raise unknown_name("plan", str(plan), PLANS)
    machine = None if hardware is None else Hardware.load(hardware)
    ranks = None if ranks is None else check_ranks(ranks)
    check_progress(progress)
    path = _check_output(output)
    if find_spec("scipy") is None:
        raise MissingDependencyError("fitting needs scipy: pip install 'roofline[calibrate]'.")
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
    """Return the path of a record's file, after writing something beside it: better now than after the first sample."""
    path = as_path(output)
    try:
        target = path.resolve()
        taken = target.exists() and not target.is_file()
        folder, allowed = target.parent.is_dir(), not target.exists() or os.access(target, os.W_OK)
    except (ValueError, OSError, RuntimeError) as error:
        raise CalibrationError(f"{output!r} is no path for a record: {getattr(error, 'strerror', None) or error}.") from None
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
    """Return how many processes add arrays up together: those asked for, or as many as there are GPUs."""
    if device.kind == "cuda":
        gpus = int(load_torch().cuda.device_count())
        there, most = "is 1 GPU" if gpus == 1 else f"are {gpus} GPUs", gpus
    else:
        cores = int(device.properties.get("cores", 1))
        there, most = "is 1 core" if cores == 1 else f"are {cores} cores", max(cores, 2)
    if ranks is not None and ranks > most:
        raise CalibrationError(f"ranks is {ranks}, and there {there}; at most {most} processes can add arrays up.")
    usual = most if device.kind == "cuda" else 1
    return usual if ranks is None else ranks


def _uuid(device: Device) -> str | None:
    """Return the UUID by which NVML finds the same device as torch, whichever devices each of them sees."""
    if device.kind != "cuda":
        return None
    uuid = getattr(load_torch().cuda.get_device_properties(device.index), "uuid", None)
    return None if uuid is None else str(uuid)
