"""The numbers of a result as flat scalars: one row of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from erflab.analysis.sizes import Quantity

if TYPE_CHECKING:
    from erflab.result import Result

IDENTITY = ("layer", "unit", "input_size", "grid", "is_global", "aligned", "center_rule")


def summarise(result: Result) -> dict[str, Any]:
    """Identity, theory, and each number of one part as {value, unit, standard_error, interval}."""
    theory, model = result.attribute("theory"), result.attribute("model")
    flat: dict[str, Any] = {
        "model": model["name"],
        "weights": model["weights"],
        **{key: theory[key] for key in IDENTITY},
        **_axes("trf_size", theory["size"], "px"),
        **_axes("trf_local_size", theory["local_size"], "px"),
        **_axes("stride", theory["stride"], "px"),
        **_axes("center", theory["center"], "px"),
        "flags": [asdict(f) for f in result.flags],
    }
    for method in result.methods:
        flat[f"{method}.magnitude"] = result.magnitude(method)
        flat.update(_quantities(method, result.weights(method)))
        sizes = result.known_sizes(method)
        if sizes is not None:
            flat[f"{method}.fit_family"] = sizes.fit.family
            flat[f"{method}.fit_verdict"] = sizes.comparison.verdict if sizes.comparison else None
            flat.update(_quantities(method, sizes.quantities))
    for name, numbers in result.agreement().items():
        flat.update(_quantities(name, numbers))
    return flat


def one_key_a_number(row: Mapping[str, Any], *, units: bool = False) -> dict[str, Any]:
    """A summary for a table: NAME, and where there are any NAME_error, NAME_low and NAME_high; on request "NAME (px)"."""
    flat: dict[str, Any] = {}
    for name, entry in row.items():
        if not isinstance(entry, Mapping):
            flat[name] = entry
            continue
        unit = f" ({entry['unit']})" if units and entry["unit"] != "1" else ""
        flat[f"{name}{unit}"] = entry["value"]
        if entry["standard_error"] is not None:
            low, high = entry["interval"] or (None, None)
            flat |= {
                f"{name}_error{unit}": entry["standard_error"],
                f"{name}_low{unit}": low,
                f"{name}_high{unit}": high,
            }
    return flat


def part_labels(theories: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """The name of each part by its theory: its layer, with the unit where a layer has several."""
    names = [t["layer"] if t["call"] == t["calls"] - 1 else f"{t['layer']}:{t['call']}" for t in theories]
    return tuple(
        name if names.count(name) == 1 else f"{name}[{','.join(map(str, theory['unit']))}]"
        for name, theory in zip(names, theories, strict=True)
    )


def _quantities(subject: str, quantities: Mapping[str, Quantity]) -> dict[str, Any]:
    return {f"{subject}.{name}": asdict(quantity) for name, quantity in quantities.items()}


def _axes(name: str, values: list[Any], unit: str) -> dict[str, Any]:
    return {
        f"{name}_{axis}": asdict(Quantity(float(v) if isinstance(v, str) else v, unit))
        for axis, v in zip("yx", values, strict=True)
    }
