"""Predicted against measured `energy` fields: sigma and total energy of both variants, and the prediction's cost.

    python benchmarks/predicted_field.py [--case NAME ...] [--precision 0.005] [--seeds 3] [--json FILE]
    python benchmarks/predicted_field.py --cost

Random networks: torchvision models with their own initial weights (one network a seed), batch-norm statistics as
initialised (mean 0, variance 1), white noise N(0, 1), the unit whose centre is nearest the image's. The field is measured
with one random sign vector an image until the jackknife error of sigma (16 groups) is within the precision. The trained
network is EfficientNet-Lite0 on photographs, calibrated on the same photographs that it is measured on.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from erflab.analysis import moments
from erflab.attribution.base import Aim, Batch
from erflab.attribution.gradient import gradient_maps
from erflab.config import ModelConfig, PhotographsConfig
from erflab.images import open_images
from erflab.models import build_model
from erflab.target import Trunk
from erflab.theory.field import TheoreticalField
from erflab.theory.predicted import PredictedField, predicted_field

GROUPS = 16
BATCH = 4


@dataclass(frozen=True)
class Case:
    """A random network: the layer (None: the last spatial one), the input side in px, and ConvNeXt's layer scale."""

    name: str
    model: str
    layer: str | None = None
    size: int = 224
    layer_scale: float | None = None

    def build(self, seed: int) -> nn.Module:
        """The network with the weights of a seed."""
        torch.manual_seed(seed)
        model: nn.Module = torchvision.models.get_model(self.model, weights=None).eval().requires_grad_(False)
        if self.layer_scale is not None:
            for name, parameter in model.named_parameters():
                if name.endswith("layer_scale"):
                    parameter.fill_(self.layer_scale)
        return model


CASES = [
    Case("resnet18", "resnet18"),
    Case("resnet50", "resnet50"),
    Case("vgg16", "vgg16"),
    Case("alexnet", "alexnet"),
    Case("mobilenet_v2", "mobilenet_v2"),
    Case("convnext_tiny", "convnext_tiny"),
    Case("convnext_tiny, layer scale 0.3", "convnext_tiny", layer_scale=0.3),
]
TRAINED = "efficientnet_lite0 (trained)"
TRAINED_LAYERS = ("blocks.2", "blocks.3", "blocks.4", "blocks.5")
TRAINED_SIZE = (352, 352)


@dataclass(frozen=True)
class Row:
    """One comparison; errors are standard errors of the measured numbers."""

    case: str
    seed: int
    layer: str
    unit: tuple[int, ...]
    images: int
    sigma: float
    sigma_error: float
    total: float
    total_error: float
    sigma_ratio: dict[str, float]
    total_ratio: dict[str, float]

    def __str__(self) -> str:
        """One line of the table."""
        ratios = "   ".join(f"{v} {self.sigma_ratio[v]:.4f} {self.total_ratio[v]:.3f}" for v in self.sigma_ratio)
        measured = f"sigma {self.sigma:.3f} +- {self.sigma_error:.3f}  total {self.total:.4g} +- {self.total_error:.1g}"
        return f"{self.case:<31} {self.seed} {self.layer:<9} {self.images:>5} images  {measured}   {ratios}"


# --- measuring ------------------------------------------------------------------------------------------------------------


def measure(
    model: nn.Module, prediction: PredictedField, batches: Iterator[Tensor], precision: float, most: int, draws: int = 1
) -> tuple[float, float, float, float, int]:
    """sigma, its jackknife error, mean total and its error, images used."""
    field = prediction.field
    trunk = Trunk(model, field.layer, field.call, field.layout)
    groups, totals, checked = np.zeros((GROUPS, *field.input_size)), list[float](), 32
    while len(totals) < most:
        images = next(batches)
        indices = tuple(range(len(totals), len(totals) + len(images)))
        batch = Batch(images, indices, tuple(map(str, indices)))
        for index, found in zip(
            indices, gradient_maps(trunk, batch, Aim((_unit(field),)), "energy", draws=draws), strict=True
        ):
            groups[index % GROUPS] += found.double().numpy()
            totals.append(float(found.sum(dtype=torch.float64)))
        if len(totals) >= checked:  # looked at only at fixed counts
            checked *= 2
            sigma, error = _sigma(prediction, groups)
            if error < precision * sigma:
                break
    sigma, error = _sigma(prediction, groups)
    return sigma, error, float(np.mean(totals)), float(np.std(totals) / len(totals) ** 0.5), len(totals)


def _unit(field: TheoreticalField) -> tuple[int, int]:
    row, column = field.unit
    return row, column


def _sigma(prediction: PredictedField, groups: np.ndarray) -> tuple[float, float]:
    whole = groups.sum(0)
    left_out = [moments(prediction.map.copy(data=whole - group)).sigma for group in groups]
    error = ((GROUPS - 1) / GROUPS * np.sum((np.array(left_out) - np.mean(left_out)) ** 2)) ** 0.5
    return moments(prediction.map.copy(data=whole)).sigma, float(error)


def noise(size: tuple[int, int], seed: int, count: int = BATCH) -> Iterator[Tensor]:
    """Batches of white noise without end."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.randn(count, 3, *size, generator=generator)


def compare(
    case: str,
    seed: int,
    model: nn.Module,
    layer: str | None,
    calibration: Tensor,
    measurement: Callable[[PredictedField], tuple[float, float, float, float, int]],
) -> Row:
    """Both predictions beside the measured field."""
    size = tuple(calibration.shape[2:])
    found = {
        "data_free": predicted_field(model, layer, size),
        "calibrated": predicted_field(model, layer, size, variant="calibrated", images=calibration),
    }
    prediction = found["data_free"]
    sigma, error, total, total_error, images = measurement(prediction)
    return Row(
        case,
        seed,
        prediction.layer,
        prediction.unit,
        images,
        sigma,
        error,
        total,
        total_error,
        {variant: p.sigma / sigma for variant, p in found.items()},
        {variant: p.total / total for variant, p in found.items()},
    )


def random_rows(case: Case, seeds: int, precision: float, most: int) -> Iterator[Row]:
    """One row a weight seed."""
    size = (case.size, case.size)
    for seed in range(seeds):
        model = case.build(seed)
        yield compare(
            case.name,
            seed,
            model,
            case.layer,
            next(noise(size, seed=1000 + seed, count=8)),
            lambda p, m=model, s=seed: measure(m, p, noise(size, seed=2000 + s), precision, most),
        )


def trained_rows(count: int, layers: Sequence[str]) -> Iterator[Row]:
    """EfficientNet-Lite0 on `count` crops of photographs, two sign vectors each."""
    loaded = build_model(ModelConfig(name="tf_efficientnet_lite0", weights="efficientnet_lite0"))
    source = open_images(PhotographsConfig(count=count), size=TRAINED_SIZE)
    pixels = torch.stack([torch.as_tensor(source[i].pixels) for i in range(len(source))])
    mean, std = (torch.tensor(s)[:, None, None] for s in (loaded.mean, loaded.std))
    images = (pixels - mean) / std
    for layer in layers:
        yield compare(
            TRAINED,
            0,
            loaded.module,
            layer,
            images,
            lambda p: measure(loaded.module, p, iter(images.split(BATCH)), 0.0, len(images), draws=2),
        )


# --- cost -----------------------------------------------------------------------------------------------------------------


def cost(repeats: int = 5) -> dict[str, float]:
    """Median seconds for ResNet-50 at 448 px: one forward and backward pass, and predictions as multiples of it."""
    model = Case("", "resnet50").build(0)
    image = next(noise((448, 448), 0, 1))
    prediction = predicted_field(model, None, (448, 448))
    trunk = Trunk(model, prediction.layer, prediction.field.call, prediction.field.layout)
    batch = Batch(image, (0,), ("0",))

    works: dict[str, Callable[[], object]] = {
        "once": lambda: gradient_maps(trunk, batch, Aim((_unit(prediction.field),)), "energy"),
        "data_free": lambda: predicted_field(model, None, (448, 448)),
        "calibrated": lambda: predicted_field(model, None, (448, 448), variant="calibrated", images=image),
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):  # in turn, so that other load on the machine falls on all alike
        for name, work in works.items():
            start = time.perf_counter()
            work()
            times[name].append(time.perf_counter() - start)
    once, *ratios = (float(np.median(times[name])) for name in works)
    return {"forward_backward_s": once, "data_free_ratio": ratios[0] / once, "calibrated_ratio": ratios[1] / once}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs="*", choices=[*(c.name for c in CASES), TRAINED], help="default: all")
    parser.add_argument("--precision", type=float, default=0.005, help="standard error of sigma over sigma")
    parser.add_argument("--most", type=int, default=2048, help="most images a random network")
    parser.add_argument("--seeds", type=int, default=3, help="weight seeds a random network")
    parser.add_argument("--photographs", type=int, default=128, help="crops of photographs for the trained network")
    parser.add_argument("--layers", nargs="*", default=TRAINED_LAYERS, help="of the trained network")
    parser.add_argument("--cost", action="store_true", help="measure the cost instead")
    parser.add_argument("--json", type=Path)
    settings = parser.parse_args()
    if settings.cost:
        found: object = cost()
        print(found)
    else:
        rows = []
        for case in [c for c in CASES if not settings.case or c.name in settings.case]:
            rows += _printed(random_rows(case, settings.seeds, settings.precision, settings.most))
        if not settings.case or TRAINED in settings.case:
            rows += _printed(trained_rows(settings.photographs, settings.layers))
        found = [asdict(row) for row in rows]
    if settings.json:
        settings.json.write_text(json.dumps(found, indent=1) + "\n")


def _printed(rows: Iterator[Row]) -> list[Row]:
    kept = []
    for row in rows:
        print(row, flush=True)
        kept.append(row)
    return kept


if __name__ == "__main__":
    sys.exit(main())
