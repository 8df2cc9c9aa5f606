"""Figures that are shipped as files: the folder they lie in, and the tables of such a file, each of which names its source."""

from functools import cache
from pathlib import Path
from typing import Literal

from roofline.description import Description
from roofline.errors import SpecError
from roofline.provenance import Ceiling

Evidence = Literal["P", "V", "S", "R", "M", "U"]

_PACKAGE = Path(__file__).resolve().parent


@cache
def spec_folder() -> Path:
    """Return the folder of shipped specs: the packaged one, or the repository's in an editable install."""
    for folder in (_PACKAGE / "_hardware_specs", _PACKAGE.parents[1] / "hardware_specs"):
        if folder.is_dir():
            return folder
    raise SpecError("the shipped hardware specs are missing from this installation; reinstall roofline.")


class Table(Description):
    """What every table of figures has: a source.

    Parameters
    ----------
    source : str, optional
        Where the figures of this table were read [-].
    evidence : str, optional
        P vendor page, V vendor repository, S third party, R recalled, M measured, U given by the user [-].
    note : str, optional
        What a reader must know about these figures [-].
    """

    source: str = "not stated"
    evidence: Evidence = "U"
    note: str = ""

    def ceiling(self, name: str, value: float, unit: str, note: str = "") -> Ceiling:
        """Return a figure of this table as a ceiling that carries the table's provenance [unit]."""
        return Ceiling(name, value, unit, self.source, self.evidence, note)
