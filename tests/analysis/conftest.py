"""The known maps as fixtures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from known_maps import as_map, gaussian_map, offsets


@pytest.fixture
def gaussian() -> Callable[..., xr.DataArray]:
    return gaussian_map


@pytest.fixture
def make_map() -> Callable[..., xr.DataArray]:
    """A map about its own middle, or at the given coordinates."""

    def make(values: object, y: np.ndarray | None = None, x: np.ndarray | None = None) -> xr.DataArray:
        array = np.asarray(values, dtype=float)
        rows, columns = (offsets((n - 1) / 2) for n in array.shape)
        return as_map(array, rows if y is None else y, columns if x is None else x)

    return make
