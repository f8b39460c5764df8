"""Which falloff family a map has: families compared by how well they predict images that they were not fitted to.

Each family is fitted to all groups of scenes but one and scored on the mean map of that one. Pixels are correlated, so
that criteria which count them (AIC, BIC) prefer too much; groups of scenes are independent. The same fits give every
parameter its jackknife error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from erflab.analysis.falloff import FalloffFit
from erflab.analysis.heldout import Folds, error_of_mean, parameter_errors
from erflab.analysis.jackknife import Estimate, GroupedMap
from erflab.analysis.lineshapes import LINE_SHAPES, line_shape
from erflab.errors import ConfigError

LARGEST = 256
"""Maps above this many pixels squared are block-averaged before families are compared: there are many fits."""

DECISIVE = 2.0
"""Standard errors by which a larger family must predict held-out images better, to be preferred."""


@dataclass(frozen=True, eq=False)
class FamilyRow:
    """One family: its fit to all images, errors of the parameters, and how well it predicts held-out ones."""

    family: str
    fit: FalloffFit
    estimates: dict[str, Estimate]
    """Every parameter of the fit, sigma, half_width and moment_sigma with their jackknife errors over groups."""
    held_out_loss: float
    """Mean squared error on held-out groups in units of their smooth variance, the same for all families."""
    gain: float | None
    """By how much this loss is below the reference's; None for the reference itself."""
    gain_error: float | None
    """Jackknife standard error of the gain over groups."""

    @property
    def parameters(self) -> int:
        """How many parameters the family has of its own."""
        return len(line_shape(self.family).extras)

    @property
    def determined(self) -> bool:
        """Whether the fit's parameters mean anything."""
        return not {"no_covariance", "not_converged"} & set(self.fit.flags)

    @property
    def errors_gained(self) -> float | None:
        """The gain in standard errors."""
        if self.gain is None or self.gain_error is None:
            return None
        return self.gain / self.gain_error if self.gain_error > 0 else math.copysign(math.inf, self.gain)

    def summary(self) -> dict[str, Any]:
        """The row as plain numbers and strings, ready for JSON."""
        fit = self.fit
        return {
            "family": self.family,
            "formula": line_shape(self.family).formula,
            "parameters": {name: asdict(estimate) for name, estimate in self.estimates.items()},
            "held_out_loss": self.held_out_loss,
            "gain": self.gain,
            "gain_error": self.gain_error,
            "aic": fit.aic,
            "bic": fit.bic,
            "r_squared": fit.r_squared,
            "reduced_chi_square": fit.reduced_chi_square,
            "binned_chi_square": fit.binned_chi_square,
            "flags": list(fit.flags),
        }

    def __str__(self) -> str:
        """One line of the table."""
        fit, gained = self.fit, self.errors_gained
        cells = [
            f"{self.family:<20}",
            f"loss {self.held_out_loss:.4g}",
            "reference" if gained is None else f"gain {self.gain:.3g} +- {self.gain_error:.1g} ({gained:.1f} errors)",
            f"R2 {fit.r_squared:.5f}",
            f"AIC {fit.aic:.6g}",
            f"BIC {fit.bic:.6g}",
            f"binned chi2 {'-' if fit.binned_chi_square is None else format(fit.binned_chi_square, '.3g')}",
        ]
        return "  ".join([*cells, *fit.flags])


@dataclass(frozen=True, eq=False)
class FamilyComparison:
    """Families from the fewest parameters to the most, and which of them the images support."""

    rows: tuple[FamilyRow, ...]
    reference: str
    """The smallest family; the best predicting one where several are as small."""
    chosen: str
    """The larger family that predicts best, if its gain exceeds `DECISIVE` errors and the map determines its parameters;
    else the reference."""

    def row(self, family: str | None = None) -> FamilyRow:
        """The row of a family, by default of the chosen one."""
        return next(row for row in self.rows if row.family == (family or self.chosen))

    @property
    def verdict(self) -> str:
        """The choice in a sentence, with the flags of its fit."""
        flags = self.row().fit.flags
        return f"{self._sentence()}; flagged {', '.join(flags)}" if flags else self._sentence()

    def _sentence(self) -> str:
        chosen, name = self.row(), line_shape(self.reference).title
        if chosen.family != self.reference:
            subject = ", ".join([line_shape(chosen.family).title, *_own_parameters(chosen)])
            return f"{subject}, preferred over {name}: held-out gain {_gained(chosen)} standard errors"
        larger = [row for row in self.rows if row.parameters > chosen.parameters and row.determined]
        if not larger:
            return f"{name}, {self._among_equals(chosen)}"
        best = max(larger, key=lambda row: row.errors_gained or 0.0)
        return (
            f"{name}: no larger family predicts held-out images better by more than {DECISIVE:g} standard errors "
            f"(best: {line_shape(best.family).title}, {_gained(best)})"
        )

    def _among_equals(self, chosen: FamilyRow) -> str:
        equals = sum(row.parameters == chosen.parameters for row in self.rows)
        if equals > 1:
            return f"the best on held-out images of {equals} compared"
        return "the only family compared" if len(self.rows) == 1 else "the only family that the map determines"

    def summary(self) -> dict[str, Any]:
        """The table and the verdict as plain numbers and strings, ready for JSON."""
        return {
            "chosen": self.chosen,
            "reference": self.reference,
            "verdict": self.verdict,
            "families": [row.summary() for row in self.rows],
        }

    def __str__(self) -> str:
        """The table and the verdict."""
        return "\n".join([*map(str, self.rows), self.verdict])


def _gained(row: FamilyRow) -> str:
    return f"{row.errors_gained:.1f}"


def _own_parameters(row: FamilyRow) -> list[str]:
    estimates = [(extra.name, row.estimates[extra.name]) for extra in line_shape(row.family).extras]
    return [
        f"{name} = {e.value:.2f} ± {e.standard_error:.2g}"
        if e.standard_error is not None
        else f"{name} = {e.value:.2f}"
        for name, e in estimates
    ]


def compare_families(
    grouped: GroupedMap,
    families: Sequence[str] = tuple(LINE_SHAPES),
    *,
    elliptical: bool = True,
    floor: bool = True,
    largest: int = LARGEST,
) -> FamilyComparison:
    """Compare falloff families by held-out groups of scenes.

    A larger family is chosen only if it predicts held-out groups better than the smallest by more than two jackknife
    standard errors. All fits share the weights of the smooth variance of the mean map over groups.

    Args:
        grouped: the map by groups of scenes, at least `heldout.LEAST_GROUPS`.
        families: keys of `LINE_SHAPES`, at least one.
        elliptical: fit two widths and an angle instead of one width.
        floor: fit a constant background.
        largest: maps of more than this many pixels squared are block-averaged.

    Raises:
        ConfigError: if no family is given, or one is unknown.
        MeasurementError: if there are too few groups, or a map cannot be fitted.

    """
    if not families:
        raise ConfigError(f"families is empty; give some of {', '.join(LINE_SHAPES)}.")
    names = sorted(dict.fromkeys(families), key=lambda name: len(line_shape(name).extras))
    folds = Folds.of(grouped, largest)
    fitted = {name: folds.fitted(name, elliptical=elliptical, floor=floor) for name in names}
    losses = {name: folds.losses(fits) for name, (_, fits) in fitted.items()}
    share = grouped.images / grouped.images.sum()
    smallest = [n for n in names if len(line_shape(n).extras) == len(line_shape(names[0]).extras)]
    reference = min(smallest, key=lambda name: float(share @ losses[name]))

    def row(name: str) -> FamilyRow:
        fit, replicates = fitted[name]
        gains = losses[reference] - losses[name]
        return FamilyRow(
            family=name,
            fit=fit.against(grouped),
            estimates=parameter_errors(fit, replicates, grouped),
            held_out_loss=float(share @ losses[name]),
            gain=None if name == reference else float(share @ gains),
            gain_error=None if name == reference else error_of_mean(gains, grouped),
        )

    rows = tuple(row(name) for name in names)
    return FamilyComparison(rows, reference, _choice(rows, reference, len(smallest)))


def _choice(rows: Sequence[FamilyRow], reference: str, smallest: int) -> str:
    """The family with the least loss among the larger ones that gain enough; the reference if there is none."""
    better = [row for row in rows[smallest:] if row.determined and (row.errors_gained or 0.0) > DECISIVE]
    return min(better, key=lambda row: row.held_out_loss).family if better else reference
