"""erflab against bare torch, the published loop, captum and openerf, in one process; start-up, memory and growth.

    python benchmarks/speed.py [--part NAME ...] [--device cuda] [--precision bf16] [--compile] [--repeats 3] [--json FILE]

gradient   images/s of forward and input gradient, against bare torch with the same batch, precision and memory order
published  the protocol of Ding et al. 2022 (RepLKNet) as published, one 1024 px image at a time: relu of the centre's gradient;
           on a GPU erflab takes 32 at a time
occlusion  seconds a (unit, patch) pair, against captum's Occlusion, one perturbation at a time
openerf    openerf's compute_erf on the same files, where it is installed
startup    seconds of `erflab --help`, `import erflab`, and `import torch`
memory     peak memory of 50 and of 2000 small images, each in a process of its own
large      peak memory of an image of 4096 px, cropped to a field or not, and of a global field, with activations kept or not
growth     seconds an image against the number of images, their size and the batch

Contestants take turns; a time is the median over repeats (processor time on a CPU, so that other work there matters
little; on a GPU that of its own events). Each row also tells how far the two maps differ (relative L2). On a GPU images are
repeated until there are enough to outlast the start.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from captum.attr import Occlusion
from torch import Tensor, nn

import erflab
from erflab.config import NoiseConfig, OcclusionConfig, RuntimeConfig
from erflab.convergence import look_counts
from erflab.images import open_images
from erflab.memory_format import channels_last_wanted
from erflab.precision import arithmetic
from erflab.result import Result
from erflab.target import Trunk

Clock = Callable[[], float]


@dataclass(frozen=True)
class Settings:
    """What all parts share."""

    runtime: RuntimeConfig
    device: torch.device
    precision: str
    repeats: int

    @property
    def on_gpu(self) -> bool:
        """Whether the device is one."""
        return self.device.type == "cuda"

    def enough(self, images: Tensor, times: int) -> Tensor:
        """The images so many times over on a GPU; on a CPU themselves."""
        return images.repeat(times, 1, 1, 1) if self.on_gpu else images


@dataclass(frozen=True)
class Row:
    """One comparison: the lab's figure, the other's, their ratio, and the difference of the maps."""

    what: str
    erflab: float
    other: float
    unit: str
    ratio: float
    map_difference: float | None = None


def clock(device: torch.device) -> float:
    """Seconds: on a GPU after all that it was asked; on a CPU of this process's processor time, which others do not stretch."""
    if device.type == "cpu":
        return time.process_time()
    torch.cuda.synchronize(device)
    return time.perf_counter()


def mark(device: torch.device) -> Any:
    """A moment: of the processor's time, or when a GPU gets here."""
    if device.type == "cpu":
        return time.process_time()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def between(first: Any, last: Any) -> float:
    """Seconds between two marks."""
    if isinstance(first, float):
        return float(last - first)
    last.synchronize()
    return float(first.elapsed_time(last)) / 1000


def resnet50(settings: Settings) -> nn.Module:
    """ResNet-50 with seeded weights, frozen."""
    torch.manual_seed(0)
    return torchvision.models.resnet50(weights=None).eval().requires_grad_(False).to(settings.device)


def trunk_of(model: nn.Module) -> nn.Sequential:
    """A ResNet up to layer4."""
    return nn.Sequential(*list(model.children())[:-2])


def positive_gradient(trunk: Callable[[Tensor], Tensor], images: Tensor, unit: int) -> Tensor:
    """The gradient of the sum of a unit's positive outputs, [B, K, H, W]."""
    inputs = images.detach().requires_grad_(True)
    scalar = trunk(inputs)[:, :, unit, unit].relu().sum()
    return torch.autograd.grad(scalar, inputs)[0]


def steadily(model: nn.Module, images: Tensor, unit: int, settings: Settings, batch: int) -> tuple[float, Result]:
    """Seconds an image between the first and the last batch's forward pass after the last look but one, and the result.

    So with reading and sums, without set-up; nothing is waited for in between.
    """
    marks: list[Any] = []
    forward = Trunk.forward

    def marked(trunk: Trunk, inputs: Tensor) -> Tensor:
        marks.append(mark(settings.device))
        return forward(trunk, inputs)

    Trunk.forward = marked  # type: ignore[method-assign]
    try:
        runtime = replace(settings.runtime, batch_size=batch)
        result = erflab.measure(model, images, "layer4", [unit, unit], magnitude="replknet", runtime=runtime)
    finally:
        Trunk.forward = forward  # type: ignore[method-assign]
    for flag in result.flags:
        if flag.code in ("crop_differs", "not_compiled", "precision_fallback"):
            print(flag, file=sys.stderr)
    batches = (len(images) - [0, *look_counts(len(images))][-2]) // batch
    return between(marks[-batches], marks[-1]) / (batch * (batches - 1)), result


def difference(map: np.ndarray, reference: np.ndarray) -> float:
    """Relative L2 distance of two maps, each of sum 1."""
    a, b = map / map.sum(), reference / reference.sum()
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def gradient(settings: Settings) -> Iterator[Row]:
    """The limit: forward and input gradient alone, of a trunk that ends at the layer."""
    batch, unit = 256 if settings.on_gpu else 8, 3
    images = torch.randn(4 * batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    model, bare_model = resnet50(settings), resnet50(settings)
    last = channels_last_wanted(bare_model, settings.runtime, settings.device)
    order = torch.channels_last if last else torch.contiguous_format
    trunk = trunk_of(bare_model).to(memory_format=order)
    given = images.to(settings.device).contiguous(memory_format=order)
    run = torch.compile(trunk) if settings.runtime.compile else trunk

    def bare() -> tuple[float, np.ndarray]:
        kept, start = [], 0.0
        with arithmetic(settings.precision, settings.device):
            for part, inputs in enumerate(given.split(batch)):
                start = clock(settings.device) if part == 1 else start
                kept.append(positive_gradient(run, inputs, unit))
        seconds = (clock(settings.device) - start) / (3 * batch)
        return seconds, torch.cat(kept).relu().sum(1, dtype=torch.float64).mean(0).cpu().numpy()

    many = settings.enough(images, 8)
    pairs = [(steadily(model, many, unit, settings, batch), bare()) for _ in range(settings.repeats)]
    yield _rates("ResNet-50 layer4, 224 px, against bare torch", pairs)


def published(settings: Settings) -> Iterator[Row]:
    """One image at a time, channels first, each map fetched to the host."""
    images = torch.randn(8 if settings.on_gpu else 3, 3, 1024, 1024, generator=torch.Generator().manual_seed(0))
    model, trunk = resnet50(settings), trunk_of(resnet50(settings))

    def loop() -> tuple[float, np.ndarray]:
        total, start = np.zeros((1024, 1024)), 0.0
        with arithmetic("fp32", settings.device):
            for index in range(len(images)):
                start = clock(settings.device) if index == 1 else start
                found = positive_gradient(trunk, images[index : index + 1].to(settings.device), 16)
                total += found.relu().sum((0, 1)).cpu().numpy()
        return (clock(settings.device) - start) / (len(images) - 1), total

    many, batch = settings.enough(images, 32), 32 if settings.on_gpu else 1
    pairs = [(steadily(model, many, 16, settings, batch), loop()) for _ in range(max(1, settings.repeats - 1))]
    yield _rates("ResNet-50 layer4, 1024 px, against the published loop", pairs)


def _rates(what: str, pairs: list[Any]) -> Row:
    """Medians of turns of (seconds an image and result) and (seconds an image and map), as images/s."""
    lab, other = ([turn[place][0] for turn in pairs] for place in (0, 1))
    ratio = statistics.median(b / a for a, b in zip(lab, other, strict=True))
    apart = difference(pairs[0][0][1].map().values, pairs[0][1][1])
    return Row(what, 1 / statistics.median(lab), 1 / statistics.median(other), "images/s", ratio, apart)


def occlusion(settings: Settings) -> Iterator[Row]:
    """Pairs of a unit and a patch: all units of the lab's passes, one of each of captum's."""
    unit, patch = 14, 25  # the unit's centre, 112 px, is also that of one of captum's windows
    images = settings.enough(torch.randn(8, 3, 224, 224, generator=torch.Generator().manual_seed(0)), 128)
    model = resnet50(settings)

    def lab(config: OcclusionConfig, count: int) -> tuple[float, Result]:
        start = clock(settings.device)
        result = erflab.measure(
            model, images[:count], "layer2", [unit, unit], "occlusion", runtime=settings.runtime, occlusion=config
        )
        return clock(settings.device) - start, result

    trunk = nn.Sequential(*list(model.children())[:-4])
    one = images[:1].to(settings.device)

    def captum() -> tuple[float, np.ndarray]:
        with torch.no_grad(), arithmetic(settings.precision, settings.device):
            clean = trunk(one)[:, :, unit, unit]
            windows = {"sliding_window_shapes": (3, patch, patch), "strides": (3, patch, patch), "baselines": 0}
            effect = Occlusion(lambda x: (trunk(x)[:, :, unit, unit] - clean).square().sum(1))
            start = clock(settings.device)
            found = -effect.attribute(one, perturbations_per_eval=1, **windows)
        places = list(range(0, 224, patch))
        return (clock(settings.device) - start) / len(places) ** 2, found[0, 0][places][:, places].cpu().numpy()

    all_units, single = OcclusionConfig(baseline="zero"), OcclusionConfig("one", patch, patch, "zero")
    turns = [(lab(all_units, len(images)), captum()) for _ in range(settings.repeats)]
    readings = len(images) * int(turns[0][0][1].dataset["occlusion_readings"].sum())
    ours, theirs = [a[0] / readings for a, _ in turns], [b[0] for _, b in turns]
    ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
    known = lab(single, 1)[1].map("occlusion").values
    apart = (
        difference(known, turns[0][1][1]) if known.shape == turns[0][1][1].shape else _overlap(known, turns[0][1][1])
    )
    what = "ResNet-50 layer2, 224 px, units=all, against captum's Occlusion"
    yield Row(what, 1 / statistics.median(ours), 1 / statistics.median(theirs), "(unit, patch) pairs/s", ratio, apart)


def _overlap(map: np.ndarray, reference: np.ndarray) -> float:
    """As `difference`, where the field is smaller than the image: the map lies about the middle of captum's windows."""
    y, x = ((large - small) // 2 for large, small in zip(reference.shape, map.shape, strict=True))
    return difference(map, reference[y : y + map.shape[0], x : x + map.shape[1]])


def openerf(settings: Settings) -> Iterator[Row]:
    """It measures one image at a time, the mean over channels, cut at zero: another magnitude of the same gradient."""
    if importlib.util.find_spec("openerf") is None:
        print("openerf is not installed", file=sys.stderr)
        return
    import timm
    from openerf import compute_erf
    from openerf.data import FlatImageDataset, build_timm_eval_transform
    from torchvision.utils import save_image

    torch.manual_seed(0)
    model = timm.create_model("resnet50", pretrained=False).eval().requires_grad_(False)
    transform, _ = build_timm_eval_transform(model)
    with tempfile.TemporaryDirectory() as folder:
        for index in range(16):
            save_image(torch.rand(3, 235, 235), Path(folder) / f"{index:02d}.png")
        images = torch.stack([image for image, _ in FlatImageDataset(folder, transform)])
        turns = []
        for _ in range(settings.repeats):
            start = clock(settings.device)
            theirs = compute_erf(
                model, image_dir=folder, target_layer="layer4", device=settings.device, show_progress=False
            )
            turns.append(
                (steadily(model, images, 3, settings, 4), ((clock(settings.device) - start) / 16, theirs.erf_map))
            )
    yield _rates("timm ResNet-50 layer4, 224 px, against openerf", turns)


def startup(settings: Settings) -> Iterator[Row]:
    """Fresh processes, taking turns."""
    commands = {
        "help": ["-m", "erflab", "--help"],
        "torch": ["-c", "import torch"],
        "erflab": ["-c", "import erflab"],
        "measure": ["-c", "from erflab import measure"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(settings.repeats + 1):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, capture_output=True)
            times[name].append(time.perf_counter() - start)
    torch_alone = statistics.median(times["torch"][1:])
    for name in ("help", "erflab", "measure"):
        seconds = statistics.median(times[name][1:])
        yield Row(
            f"start-up: {' '.join(commands[name])}, against import torch",
            seconds,
            torch_alone,
            "s",
            seconds / torch_alone,
        )


def memory(settings: Settings) -> Iterator[Row]:
    """Peaks of two processes."""
    yield _peaks("peak memory, 2000 images against 50, 32 px", "many", "few", settings)


def large(settings: Settings) -> Iterator[Row]:
    """Peaks of two processes, and of two more."""
    what = "peak memory, ResNet-50 layer4, an image of 4096 px against one of 448 px"
    yield _peaks(what, "bounded_4096", "bounded_448", settings)
    what = "peak memory, EfficientNet-B0 features.5, 2048 px, recomputed against kept"
    yield _peaks(what, "global_recomputed", "global_kept", settings)


def _peaks(what: str, one: str, other: str, settings: Settings) -> Row:
    """MiB of two workloads."""

    def peak(workload: str) -> float:
        command = [sys.executable, __file__, "--memory-of", workload, "--device", str(settings.device)]
        command += ["--precision", settings.precision]
        return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    ours, theirs = peak(one), peak(other)
    return Row(what, ours, theirs, "MiB", ours / theirs)


@dataclass(frozen=True)
class Workload:
    """A measurement whose peak memory is of interest."""

    model: str
    layer: str
    size: int
    images: int = 1
    method: tuple[str, ...] = ("gradient",)
    changes: tuple[tuple[str, Any], ...] = ()


SMALL = Workload("resnet18", "layer2", 32, 50, ("gradient", "occlusion"), (("batch_size", 16),))
WORKLOADS = {
    "few": SMALL,
    "many": replace(SMALL, images=2000),
    "bounded_448": Workload("resnet50", "layer4", 448),
    "bounded_4096": Workload("resnet50", "layer4", 4096),
    "global_kept": Workload("efficientnet_b0", "features.5", 2048, changes=(("recompute", False),)),
    "global_recomputed": Workload("efficientnet_b0", "features.5", 2048, changes=(("recompute", True),)),
    "global_4096": Workload("efficientnet_b0", "features.5", 4096),
}


def peak_memory(settings: Settings, work: Workload) -> float:
    """MiB that this process has held at most (on a GPU: tensors), after a measurement."""
    torch.manual_seed(0)
    model = getattr(torchvision.models, work.model)(weights=None)
    images = open_images(NoiseConfig(count=work.images), size=(work.size, work.size))
    runtime = replace(settings.runtime, **dict(work.changes))
    erflab.measure(model, images, work.layer, method=list(work.method), runtime=runtime)
    if settings.on_gpu:
        return torch.cuda.max_memory_allocated(settings.device) / 2**20
    # Not getrusage, which counts the process that this one was forked from.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def growth(settings: Settings) -> Iterator[Row]:
    """ResNet-18 to layer2; each row against the first of its kind."""
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None)

    def seconds(count: int, size: int, batch: int) -> float:
        start = clock(settings.device)
        images = open_images(NoiseConfig(count=count), size=(size, size))
        erflab.measure(model, images, "layer2", runtime=replace(settings.runtime, batch_size=batch))
        return clock(settings.device) - start

    cases = {
        "images": [(16, 128, 8), (64, 128, 8), (256, 128, 8)],
        "size": [(16, 128, 4), (16, 256, 4), (16, 512, 4)],
        "batch": [(32, 128, 1), (32, 128, 4), (32, 128, 16)],
    }
    for kind, listed in cases.items():
        times = [statistics.median(seconds(*case) for _ in range(settings.repeats)) for case in listed]
        for (count, size, batch), taken in zip(listed, times, strict=True):
            what = f"growth with {kind}: {count} images of {size} px, {batch} at once"
            yield Row(what, taken, times[0], "s", taken / times[0])


PARTS = {part.__name__: part for part in (gradient, published, occlusion, openerf, startup, memory, large, growth)}


def show(row: Row) -> None:
    apart = "" if row.map_difference is None else f"maps differ by {row.map_difference:.1e}"
    print(f"{row.what:72s} {row.erflab:10.4g} {row.other:10.4g} {row.unit:22s} {row.ratio:9.3g} {apart}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=("fp32", "tf32", "bf16"), default="fp32")
    parser.add_argument("--compile", action="store_true", help="compile erflab's trunk, and bare torch's")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--memory-of", choices=WORKLOADS, help="print the peak memory in MiB of one measurement alone")
    given = parser.parse_args()
    runtime = RuntimeConfig(progress=False, device=given.device, precision=given.precision, compile=given.compile)
    settings = Settings(runtime, torch.device(given.device), given.precision, given.repeats)
    if given.memory_of:
        print(peak_memory(settings, WORKLOADS[given.memory_of]))
        return
    print(f"{'':72s} {'erflab':>10s} {'other':>10s} {'':22s} {'ratio':>9s}")
    rows = []
    for name in given.part:
        for row in PARTS[name](settings):
            show(row)
            rows.append(asdict(row))
    if given.json:
        about: dict[str, Any] = {"torch": torch.__version__, "threads": torch.get_num_threads(), "device": given.device}
        about |= {"precision": given.precision, "compile": given.compile}
        given.json.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
