"""One run at a time writes a record: a second one would overwrite the samples of the first."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from roofline.errors import CalibrationError

try:
    import fcntl
except ImportError:  # not a POSIX system: two runs on one file are then found when the second starts to write
    fcntl = None  # type: ignore[assignment]

Stamp = tuple[int, int, int] | None
"""What changes whenever a file is replaced; None where there is none."""


def stamp(path: Path) -> Stamp:
    """Return what tells a file from the one that may replace it."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


@contextmanager
def only_run(path: Path) -> Iterator[None]:
    """Refuse to go on if another run writes the same record; the system forgets the lock of a run that was killed."""
    target = path.resolve()
    lock = target.with_name(f".{target.name[:100]}.lock")
    handle = None if fcntl is None else _locked(path, lock)
    try:
        yield
    finally:
        if handle is not None:
            lock.unlink(missing_ok=True)
            os.close(handle)


def _locked(path: Path, lock: Path) -> int:
    while True:
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            raise CalibrationError(f"{path}: cannot be written: {error.strerror or error}.") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), os.stat(lock)):
                return handle
        except BlockingIOError:
            os.close(handle)
            raise CalibrationError(
                f"{path}: another run is writing this record; wait for it, and then resume it, or give this run another file."
            ) from None
        except FileNotFoundError:  # the run that had it is over, and has removed it
            pass
        except OSError:  # a file system without locks
            return handle
        os.close(handle)
