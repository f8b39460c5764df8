"""The predicted field: how much each pixel should matter to a unit, from structure and weights, in one backward pass.

The expected energy sum_k sum_c J[c, k, p]^2 is carried backward as if all cross terms between paths vanished: squared
weights for weights, E[phi'^2] for a nonlinearity (mean-field theory of signal propagation: Poole et al. 2016, Schoenholz
et al. 2017). Cross terms do vanish, on average over weights, in random networks. Where weights are *coherent* they do not,
and the gap between the predicted and the measured field says how far: a stack of n uniform k x k kernels has the squared
kernel's moments in either case, but the exact energy of the stack is that of the n-fold kernel squared, sigma smaller by
about sqrt(2); and training makes weights coherent with each other and with which units are active.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from erflab.analysis import moments
from erflab.errors import ConfigError, TheoryError, closest
from erflab.models import frozen
from erflab.theory.energy_rules.meanfield import Factors
from erflab.theory.energy_rules.moments import Moments
from erflab.theory.field import TheoreticalField, Unit
from erflab.theory.layer import theoretical_field
from erflab.theory.propagation import Energies, energy_rule, expected_factors, observed_factors, pull_back
from erflab.theory.runs import image_shape
from erflab.theory.trace import Graph, Node, Value, trace

VARIANTS = ("data_free", "calibrated")

_AXES = ("z", "y", "x")
_INCOHERENT = "paths add in energy: cross terms between weights are taken to vanish"
_SOURCES = {
    "data_free": "white Gaussian images of variance 1; activations Gaussian, a mean and a variance a channel, no borders",
    "calibrated": "derivatives of nonlinearities, gates, norms and max-pool choices as they are on the images given",
}


@dataclass(frozen=True, eq=False)
class PredictedField:
    """The energy map that the mean field expects, E sum_k sum_c J^2, over the input's pixels.

    Attributes:
        map: dims (y, x), float64, coordinates in px from the unit's centre.
        variant: "data_free" or "calibrated".
        layer_energy: module ("name:k" for the k-th call of one that runs more than once) -> energy of the gradient with
            respect to its output, in execution order: how gradients grow or vanish with depth.
        assumptions: what the prediction takes for granted or leaves out, in words.
        field: the theoretical field of the layer, with the unit.
    """

    map: xr.DataArray
    variant: str
    layer_energy: Mapping[str, float]
    assumptions: tuple[str, ...]
    field: TheoreticalField

    def __repr__(self) -> str:
        """In a line; the map and the layers' energies would fill the screen."""
        sides = " x ".join(map(str, self.map.shape))
        return f"PredictedField({self.layer!r}, {self.variant!r}, unit={self.unit}, total={self.total:.4g}, map {sides} px)"

    @property
    def layer(self) -> str:
        """The layer's module name."""
        return self.field.layer

    @property
    def unit(self) -> tuple[int, ...]:
        """The unit, (row, column)."""
        return self.field.unit

    @property
    def total(self) -> float:
        """The energy of all pixels together."""
        return float(self.map.sum())

    @property
    def sigma(self) -> float:
        """sqrt(trace / 2) of the map's covariance about its centroid, in px. Raises MeasurementError for a map of zeros."""
        return moments(self.map).sigma


def predicted_field(
    model: nn.Module,
    layer: str | None = None,
    input_size: Sequence[int] = (224, 224),
    unit: Unit = "center",
    *,
    variant: str = "data_free",
    images: Tensor | None = None,
    channels: int | None = None,
    layout: str = "auto",
    grid: Sequence[int] | None = None,
) -> PredictedField:
    """The energy field that the mean field predicts for one unit, all its channels together.

    Args:
        model: any module on images [B, channels, *input_size]; it is run in eval mode and left as it was.
        layer, input_size, unit, channels, layout, grid: as for `theoretical_field`.
        variant: "data_free" carries a mean and a variance a channel forward from white Gaussian images and takes
            E[phi'^2] from them. "calibrated" takes phi'^2 of each unit on each of `images`, one backward pass an image,
            and averages the maps: which units are active depends on the place, and on which others are.
        images: [B, channels, *input_size], normalised as the model wants them; for "calibrated" only. A few are enough:
            the energies of all signs of the weights are averaged exactly.

    Raises:
        ConfigError: an unknown variant; images missing, of another shape, or given to "data_free".
        UnknownOperationError: an operation without a row in the energy column, or in a form that it does not know.
        TargetError, TheoryError: as for `theoretical_field`; and a prediction that is not finite.
    """
    field = theoretical_field(model, layer, input_size, unit, channels=channels, layout=layout, grid=grid)
    return Predictor(model, field.input_size, variant=variant, images=images, channels=channels).predict(field)


class Predictor:
    """Predicts the fields of any layers of one model at one input size: a backward pass a layer.

    What layers share is done once: the recorded run, and in variant "data_free" the moments carried forward, as far as a
    layer asks for them. So a layer before an operation without a rule is predicted, and a layer behind it is refused.
    """

    def __init__(
        self,
        model: nn.Module,
        input_size: Sequence[int] = (224, 224),
        *,
        variant: str = "data_free",
        images: Tensor | None = None,
        channels: int | None = None,
    ) -> None:
        """Record the model; arguments and errors as for `predicted_field`."""
        shape = image_shape(model, input_size, channels)
        _check(variant, images, shape)
        with frozen(model):
            self.graph = _record(model, shape)
        self.variant = variant
        self._like = _like(model, images)
        self._images = [] if images is None else list(images.to(self._like).split(1))
        self._moments: dict[Value, Moments] = {}
        self._factors: dict[Node, Factors] = {}

    @torch.no_grad()
    def predict(self, field: TheoreticalField) -> PredictedField:
        """The energy field of one unit: the one that `field`, read at the same input size, means by default.

        Raises UnknownOperationError and TheoryError as `predicted_field` does.
        """
        field = replace(field, unit=field.resolve())
        target = self.graph.layers[field.layer, field.call]
        nodes = self.graph.needed([target])
        seed = _seed(self._like, target, field)
        passes = [pull_back(nodes, factors, target, seed) for factors in self._factors_of(nodes)]
        return PredictedField(
            map=_as_map(sum(_at_input(self.graph, energies) for energies in passes) / len(passes), field),
            variant=self.variant,
            layer_energy=_layer_energy(self.graph, [energies.totals for energies in passes]),
            assumptions=(_INCOHERENT, _SOURCES[self.variant], *_notes(nodes)),
            field=field,
        )

    def _factors_of(self, nodes: Sequence[Node]) -> Iterator[dict[Node, Factors]]:
        """The factors of every pass: one an image, or the expected ones."""
        if self.variant == "calibrated":
            yield from (observed_factors(self.graph, nodes, image) for image in self._images)
        else:
            new = [node for node in nodes if node not in self._factors]
            self._factors |= expected_factors(self.graph, new, self._like, self._moments)
            yield self._factors


def _check(variant: str, images: Tensor | None, shape: tuple[int, ...]) -> None:
    if variant not in VARIANTS:
        raise ConfigError(f"variant {variant!r}; give data_free or calibrated.{closest(variant, VARIANTS)}")
    if variant == "data_free" and images is not None:
        raise ConfigError("images were given, but variant data_free reads none; give variant='calibrated'.")
    if variant == "calibrated" and (images is None or images.shape[1:] != shape[1:] or len(images) == 0):
        seen = "none" if images is None else f"shape {tuple(images.shape)}"
        raise ConfigError(
            f"variant calibrated needs images of shape [B, {', '.join(map(str, shape[1:]))}], got {seen}."
        )


def _record(model: nn.Module, shape: tuple[int, ...]) -> Graph:
    """The graph with its real weights: of a run without data, or, if that leaves a constant unknown, of a real one."""
    graph = trace(model, shape)
    if graph.failure is not None or any(_lacks_data(node) for node in graph.nodes):
        graph = trace(model, shape, meta=False)
    if graph.failure is not None:
        raise TheoryError(f"the model does not run at input size {shape[2:]}: {graph.failure}") from graph.failure
    return graph


def _lacks_data(node: Node) -> bool:
    return any(isinstance(leaf, Tensor) and leaf.is_meta for leaf in tree_leaves((node.args, node.kwargs)))


def _like(model: nn.Module, images: Tensor | None) -> Tensor:
    """A tensor of the weights' dtype (the images', if there are no weights), on the host as all that is recorded."""
    fallback = torch.empty(0) if images is None else images
    return next((p.detach() for p in model.parameters() if p.is_floating_point()), fallback).cpu()


def _seed(like: Tensor, target: Value, field: TheoreticalField) -> Tensor:
    """Energy 1 in every channel of the unit."""
    seed = like.new_zeros(target.shape)
    one = field.layout.fold(seed)
    for axis, index in enumerate(field.unit, 2):
        one = one.narrow(axis, index, 1)
    one.fill_(1)
    return seed


def _at_input(graph: Graph, energies: Energies) -> Tensor:
    """The energy at every pixel, [*image axes] in float64."""
    energy = energies.known.get(graph.input)
    if energy is None:
        return torch.zeros(graph.input_size, dtype=torch.float64)
    summed = energy[0].sum(0, dtype=torch.float64).cpu() * energies.scale
    if not bool(torch.isfinite(summed).all()):
        raise TheoryError("the predicted energy is not finite; check the weights, or convert the model to float64.")
    return summed


def _as_map(energy: Tensor | float, field: TheoreticalField) -> xr.DataArray:
    sides = zip(_AXES[-len(field.input_size) :], field.input_size, field.center(), strict=True)
    coordinates = {axis: np.arange(n) - center for axis, n, center in sides}
    return xr.DataArray(np.asarray(energy), coordinates, tuple(coordinates), "predicted energy")


def _layer_energy(graph: Graph, passes: Sequence[Mapping[Value, float]]) -> dict[str, float]:
    """The mean over passes for every module whose output the unit depends on."""
    calls = graph.calls
    return {
        name if calls[name] == 1 else f"{name}:{call}": sum(p[value] for p in passes) / len(passes)
        for (name, call), value in graph.layers.items()
        if all(value in p for p in passes)
    }


def _notes(nodes: Sequence[Node]) -> list[str]:
    """What the rules of the operations met leave out, each once."""
    return list(dict.fromkeys(note for node in nodes if (note := energy_rule(node).note)))
