"""What a Shapefile makes of a layer: several files, and names of ten characters."""

from __future__ import annotations

from collections.abc import Iterable

SHAPEFILE_PARTS = (".shx", ".dbf", ".prj", ".cpg")
"""Files that GDAL writes beside the ``.shp``."""

SHAPEFILE_JOB = ".shp.json"
"""File beside it that keeps the fingerprint of the job, for which a Shapefile has no place, and the long names."""

_LONGEST = 10
_SHORT = {
    "perimeter_m": "perim_m",
    "orientation_deg": "orient_deg",
    "regularization_iou": "regul_iou",
}


def shapefile_names(names: Iterable[str]) -> dict[str, str]:
    """Return a name of at most ten characters for each column, all different.

    >>> shapefile_names(["id", "perimeter_m", "perimeter_more", "perimeter_most"])
    {'id': 'id', 'perimeter_m': 'perim_m', 'perimeter_more': 'perimeter_', 'perimeter_most': 'perimeter1'}
    """
    short: dict[str, str] = {}
    for name in names:
        found = _SHORT.get(name, name)[:_LONGEST]
        number = 0
        while found in short.values():
            number += 1
            found = f"{_SHORT.get(name, name)[: _LONGEST - len(str(number))]}{number}"
        short[name] = found
    return short
