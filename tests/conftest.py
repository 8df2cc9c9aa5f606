import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("ci", deadline=None, derandomize=True)
settings.register_profile("few", deadline=None, derandomize=True, max_examples=10)
settings.register_profile("explore", deadline=None, max_examples=2000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what is marked gpu where there is no CUDA device, and say so."""
    if item.get_closest_marker("gpu"):
        torch = pytest.importorskip("torch")
        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The repository root."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def import_benchmark(repository: Path) -> Callable[[str], ModuleType]:
    """What imports a script of benchmarks/; they find each other as scripts do, by their folder."""

    def load(name: str) -> ModuleType:
        folder = str(repository / "benchmarks")
        sys.path.insert(0, folder)
        try:
            return importlib.import_module(name)
        finally:
            sys.path.remove(folder)

    return load


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """The file of a calibration record that is not there yet."""
    return tmp_path / "record.json"


_FITS: dict[tuple[Any, ...], dict[str, Any]] = {}


@pytest.fixture
def remember_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fit the same samples once for all tests."""
    from roofline.fitting import classes

    real = classes.fitted_fields

    def remembered(family: Any, features: Any, seconds: Any, *, peak_flops_per_s: float, bandwidth: Any) -> dict[str, Any]:
        key = (family.name, seconds.tobytes(), *(c.tobytes() for c in features.values()), peak_flops_per_s, bandwidth.tobytes())
        if key not in _FITS:
            _FITS[key] = real(family, features, seconds, peak_flops_per_s=peak_flops_per_s, bandwidth=bandwidth)
        return dict(_FITS[key])

    monkeypatch.setattr(classes, "fitted_fields", remembered)


@pytest.fixture
def pretend_all_reduces(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """What replaces the processes of all-reduces by pretended ones."""
    from pretended import Sums
    from roofline.calibration import session

    def use(wrong: dict[int, BaseException] | None = None) -> Sums:
        found = Sums(wrong)
        monkeypatch.setattr(session, "measure_all_reduce", found)
        return found

    return use
