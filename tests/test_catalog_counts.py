"""Entries of the catalogue against the number of parameters that is published of their checkpoints, or of models of the same shape.

tests/data/published_parameters.csv has one line per model: the repository, what its files hold, whether that includes the layers that
draft, how much of it is beside a description and what that is, and who printed the number.
"""

import csv
from pathlib import Path

import pytest

from roofline import Model

with (Path(__file__).parent / "data" / "published_parameters.csv").open(encoding="utf-8", newline="") as file:
    PUBLISHED = list(csv.DictReader(file))


@pytest.mark.parametrize("row", PUBLISHED, ids=lambda row: row["model"])
def test_an_entry_has_the_parameters_of_its_checkpoint(row):
    model = Model.load(row["repository"])
    assert (model.name, model.alias_note) == (row["model"], "")
    in_files = model.parameters + (model.tower_parameters or 0) + int(row["drafts"]) * model.mtp_parameters + int(row["beside"])
    if "e" in row["parameters"]:  # published to the billion
        assert round(in_files / 1e9) == float(row["parameters"]) / 1e9
    else:
        assert in_files == int(row["parameters"])
