"""The power spectrum of a map, in which a checkerboard is a peak at its own frequency."""

from __future__ import annotations

import numpy as np
import xarray as xr

from erflab.analysis.profile import as_density, spacing
from erflab.errors import ConfigError


def power_spectrum(map: xr.DataArray) -> xr.DataArray:
    """|DFT of the density|^2 on ("fy", "fx"), in cycles per px from -1/2 to 1/2 of the sampling rate, 1 at zero frequency.

    A field with a hole in every second row has a peak at 1/2 cycle per px, as high as the one at zero; a smooth one of
    width sigma falls as exp(-(2 pi f sigma)^2).

    Raises:
        MeasurementError: if the map has no density.
    """
    density = as_density(map.sortby(["y", "x"]))
    dy, dx = spacing(density)
    power = np.abs(np.fft.fftshift(np.fft.fft2(density.values))) ** 2
    frequencies = [np.fft.fftshift(np.fft.fftfreq(n, step)) for n, step in zip(density.shape, (dy, dx), strict=True)]
    return xr.DataArray(power, coords={"fy": frequencies[0], "fx": frequencies[1]}, dims=("fy", "fx"))


def checkerboard(map: xr.DataArray, period: int) -> float:
    """Amplitude of the map's unevenness of a period, from 0 to 1: the largest |DFT of the density| at its harmonics.

    The density is summed by its position modulo `period` along either axis; the harmonics of those period^2 sums are what
    a lattice leaves, and a field much wider than the period leaves nothing. 1 says that one position has everything.

    Args:
        map: values on (y, x), one px apart.
        period: in px, at least 2.

    Raises:
        ConfigError: if the period is below 2.
        MeasurementError: if the map has no density.
    """
    if period < 2:
        raise ConfigError(f"period is {period!r}; give at least 2 px.")
    density = as_density(map).values
    sums = np.zeros((period, period))
    np.add.at(sums, np.ix_(np.arange(density.shape[0]) % period, np.arange(density.shape[1]) % period), density)
    harmonics = np.abs(np.fft.fft2(sums))
    harmonics[0, 0] = 0.0
    return float(harmonics.max())
