"""The built wheel: what is in it, what importing it costs, and what it promises to export."""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import roofline
from roofline.huggingface.registry import _FAMILIES

HEAVY = ["torch", "pynvml", "matplotlib", "rich", "scipy", "pandas", "transformers"]


def python(code, **environment):
    """Run code in a fresh interpreter and return what it printed, as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def wheel_files():
    distribution = importlib.metadata.distribution("roofline")
    origin = json.loads(distribution.read_text("direct_url.json") or "{}")
    if origin.get("dir_info", {}).get("editable"):
        pytest.skip("roofline is installed in editable mode; .ci/test runs the tests on the built wheel")
    return [f.as_posix() for f in distribution.files]


def test_wheel_ships_the_hardware_specs(wheel_files, repository):
    shipped = {Path(f).name for f in wheel_files if f.startswith("roofline/_hardware_specs/") and f.endswith(".toml")}
    assert shipped
    assert shipped == {p.name for p in (repository / "hardware_specs").rglob("*.toml")}


def test_wheel_ships_the_calibration_records(wheel_files, repository):
    shipped = {Path(f).name for f in wheel_files if f.startswith("roofline/_hardware_specs/measured/") and f.endswith(".json")}
    assert "generic.json" in shipped
    assert shipped == {p.name for p in (repository / "hardware_specs" / "measured").glob("*.json")}


def test_wheel_is_typed_and_licensed(wheel_files):
    assert "roofline/py.typed" in wheel_files
    assert any(f.endswith("/licenses/LICENSE") for f in wheel_files)


def test_wheel_holds_the_package_alone(wheel_files):
    tops = {f.split("/")[0] for f in wheel_files if not f.startswith("..")}
    assert {t for t in tops if not t.endswith(".dist-info")} == {"roofline"}


def test_machines_are_found_in_a_source_tree(repository):
    """An editable install puts src on the path and has no packaged specs: they are read from the repository."""
    code = "import json, roofline; f = roofline.decode_floor('70B', 'h100-sxm'); print(json.dumps([roofline.__file__, f.time_s]))"
    where, time_s = python(code, PYTHONPATH=str(repository / "src"))
    assert Path(where).is_relative_to(repository / "src")
    assert time_s == pytest.approx(70e9 * 2 / 3.35e12, rel=0.01)  # bf16 weights over the datasheet's 3.35 TB/s


def test_import_is_light():
    code = f"import json, sys, roofline; print(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    assert python(code) == []


def test_what_reads_measured_runs_is_light_until_a_file_needs_more():
    others = ["prometheus_client", "yaml", "urllib.request", "ssl"]
    code = f"""
import json, sys, roofline
from roofline import BottleneckMonitor, compare, profile_torch, read_measurement, read_metrics, read_trace
print(json.dumps([m for m in {[*HEAVY, *others]!r} if m in sys.modules]))
"""
    assert python(code) == []


def test_what_is_asked_by_name_needs_no_pydantic():
    code = f"""
import json, sys, roofline
roofline.decode_floor("llama-3.1-70b", "h100-sxm", batch=8, context=8192, tensor_parallel=8)
readers = [m for m in sys.modules if m.startswith("roofline.huggingface.")]
print(json.dumps([[m for m in {[*HEAVY, "pydantic"]!r} if m in sys.modules], readers]))
"""
    heavy, readers = python(code)
    assert heavy == []
    families = {f"roofline.huggingface.{family}" for family in _FAMILIES}
    assert [m for m in readers if m in families] == ["roofline.huggingface.llama"]


def test_help_imports_no_command():
    code = """
import contextlib, io, json, sys
from roofline.cli import main
sys.argv = ["roofline", "--help"]
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    main()
print(json.dumps([m for m in ("numpy", "pydantic", "rich", "roofline.floors", "roofline.cli.floor") if m in sys.modules]))
"""
    assert python(code) == []


def test_version_is_the_distribution_s():
    assert roofline.__version__ == importlib.metadata.version("roofline")


def test_public_names_exist():
    assert [n for n in roofline.__all__ if not hasattr(roofline, n)] == []
    assert len(set(roofline.__all__)) == len(roofline.__all__)
    assert {"decode_floor", "prefill_floor", "step_floor"} <= set(roofline.__all__)


def test_core_dependencies_are_two():
    required = importlib.metadata.requires("roofline")
    assert sorted(r.split(">")[0] for r in required if "extra ==" not in r) == ["numpy", "pydantic"]


def lower_bounds(requirements):
    """The lower bound of every requirement by name."""
    return dict(re.fullmatch(r"([\w-]+)>=([\d.]+)", r).groups() for r in requirements)


def test_the_lowest_versions_that_are_tested_are_those_that_are_promised(repository):
    project = tomllib.loads((repository / "pyproject.toml").read_text())
    extras, groups = project["project"]["optional-dependencies"], project["dependency-groups"]
    promised = lower_bounds([*project["project"]["dependencies"], *extras["calibrate"], *extras["plot"]])
    del promised["torch"]  # the file says why
    pinned = dict(line.split("==") for line in (repository / ".ci" / "lowest.txt").read_text().splitlines() if not line.startswith("#"))
    for name, version in (promised | lower_bounds(groups["fast"])).items():
        assert re.sub(r"(\.0)+$", "", pinned.pop(name)) == re.sub(r"(\.0)+$", "", version), name
    assert not pinned
    assert not {"torch", "transformers", "aiconfigurator-core"} & set(lower_bounds(groups["fast"]))


def test_messages_name_extras_that_there_are(repository):
    """They say ``pip install '.[extra]' in a checkout``, as the package is on no index."""
    extras = tomllib.loads((repository / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    source = "".join(file.read_text(encoding="utf-8") for file in (repository / "src" / "roofline").rglob("*.py"))
    assert set(re.findall(r"\binstall\('(\w+)'\)", source)) == {"calibrate", "models", "monitor", "plot"} <= extras.keys()
    assert "pip install 'roofline" not in source
