from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctrs.vector.layers.arrow_arrays import arrow_array, numpy_view

TEXTS = st.lists(st.none() | st.text(), max_size=20)
BYTES = st.lists(st.none() | st.binary(max_size=9), max_size=20)
NUMBERS = st.lists(st.floats(allow_infinity=True), max_size=20)
INTEGERS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20)


@pytest.mark.parametrize(
    ("columns", "dtype", "kind"),
    [
        (TEXTS, object, pa.string()),
        (BYTES, object, pa.binary()),
        (NUMBERS, float, pa.float64()),
        (INTEGERS, np.int64, pa.int64()),
    ],
)
def test_columns_are_what_pyarrow_makes_of_them(columns: Any, dtype: npt.DTypeLike, kind: pa.DataType) -> None:
    @given(columns)
    def check(values: list[Any]) -> None:
        column = np.empty(len(values), dtype)
        column[:] = values
        found = arrow_array(column, kind)
        found.validate(full=True)
        assert found.equals(pa.array(column, kind, from_pandas=True))

    check()


def test_every_other_number_is_written_as_it_is() -> None:
    bounds = np.arange(12, dtype=float).reshape(3, 4)
    assert numpy_view(arrow_array(bounds[:, 1], pa.float64())).tolist() == [1, 5, 9]


def test_geoparquet_is_written_without_pandas(write_mask: Callable[..., Path], tmp_path: Path) -> None:
    labels = np.zeros((40, 60), np.uint8)
    labels[5:20, 5:20] = 1
    mask, out = write_mask(labels), tmp_path / "houses.parquet"
    script = (
        "import sys\nfrom ctrs.cli.app import main\n"
        "assert main(['vectorize', sys.argv[1], '-o', sys.argv[2]]) == 0\n"
        "print('LOADED', sorted({'pandas', 'geopandas', 'pyogrio', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script, mask, out], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED []"
    assert geopandas.read_parquet(out)["class"].tolist() == ["building"]
