"""Bytes and files of a run by its kind, what fills a result, and the time and size of a table of many.

    python benchmarks/storage.py [--kind NAME ...] [--images 16] [--runs 300] [--directory DIR] [--json FILE]

Kinds are ResNet-18s at 224 px on noise, each image a scene of its own, so that all 16 groups are stored. Each row tells bytes:
of the result, the summary, the figures, the other files (provenance, log, `.hydra/`), of all of them, as the file system
holds them (whole blocks), and of a compressed tar; the number of files and directories; and the shares of `result.nc` by
variable. Runs that DIR holds already are not measured again. The table is collected of copies of the first kind's run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from erflab.collection import collect

ONE = [
    "model=resnet18",
    "images=noise",
    "images.size=224",
    "falloff=gaussian",
    "runtime.device=cpu",
    "runtime.progress=false",
]
KINDS = {
    "gradient": [*ONE, "target.layer=layer4", "attribution=gradient"],
    "gradient, no figures": [*ONE, "target.layer=layer4", "attribution=gradient", "runtime.figures=false"],
    "gradient, field of 99 px": [*ONE, "target.layer=layer2", "attribution=gradient"],
    "gradient and occlusion": [*ONE, "target.layer=layer4", "attribution=[gradient,occlusion]"],
    "gradient, all layers": [*ONE, "target.layer=all", "attribution=gradient", "runtime.figures=[depth]"],
}


def run(kind: str, images: int, directory: Path) -> None:
    """Measure one kind; a finished run is left as it is."""
    command = [sys.executable, "-m", "erflab", *KINDS[kind], f"images.count={images}", f"hydra.run.dir={directory}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def sizes(directory: Path) -> dict[str, int]:
    """Bytes and counts of one run's directory."""
    found: Counter[str] = Counter()
    for path in [directory, *directory.rglob("*")]:
        found["on disk"] += 512 * path.stat().st_blocks
        found["directories" if path.is_dir() else "files"] += 1
        if path.is_file():
            found["bytes"] += path.stat().st_size
            found[_what(path.relative_to(directory))] += path.stat().st_size
    with tempfile.NamedTemporaryFile(suffix=".tar.gz") as packed:
        with tarfile.open(packed.name, "w:gz") as tar:
            tar.add(directory, directory.name)
        found["tar.gz"] = Path(packed.name).stat().st_size
    return dict(found)


def _what(path: Path) -> str:
    whole = {"result.nc": "result", "summary.json": "summary"}
    return "figures" if path.parts[0] == "figures" else whole.get(path.name, "other")


def shares(result: Path) -> dict[str, float]:
    """The share of result.nc that each kind of variable fills, largest first; what is left holds attributes and structure."""
    stored: Counter[str] = Counter()

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            stored[_variable(name)] += node.id.get_storage_size()

    with h5py.File(result) as file:
        file.visititems(visit)
    stored["attributes and structure"] = result.stat().st_size - sum(stored.values())
    return {name: round(size / result.stat().st_size, 3) for name, size in stored.most_common(6)}


def _variable(name: str) -> str:
    last = name.rsplit("/", 1)[-1]
    for method in ("gradient", "occlusion"):
        if last.startswith(method):
            return last.removeprefix(method).lstrip("_") or "map"
    return "coordinates"


def table(first: Path, runs: int) -> dict[str, float]:
    """Processor time to collect copies of one run, and bytes of the table in each format."""
    with tempfile.TemporaryDirectory(dir=first.parent) as folder:
        for k in range(runs):  # links: the same bytes to read, and none to copy
            shutil.copytree(first, Path(folder) / f"run{k}", copy_function=os.link)
        started = time.process_time()
        made = collect(folder)
        seconds = time.process_time() - started
        numbers = made.select_dtypes(
            "float"
        )  # made different again, for a column of equal values takes next to nothing
        made[numbers.columns] = numbers * np.random.default_rng(0).uniform(0.5, 2, numbers.shape)
        csv, parquet = Path(folder) / "t.csv", Path(folder) / "t.parquet"
        made.to_csv(csv, index=False)
        made.to_parquet(parquet, index=False)
        return {
            "runs": runs,
            "processor seconds": round(seconds, 2),
            "columns": len(made.columns),
            "csv bytes a run": round(csv.stat().st_size / runs),
            "parquet bytes a run": round(parquet.stat().st_size / runs),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", nargs="*", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    directory = options.directory or Path(tempfile.mkdtemp())
    found = dict(_measured(options.kind, options.images, directory))
    first = directory / _folder(options.kind[0])
    found["table"] = table(first, options.runs)
    print(json.dumps(found["table"]))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


def _measured(kinds: list[str], images: int, directory: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for kind in kinds:
        run(kind, images, directory / _folder(kind))
        row = {
            **sizes(directory / _folder(kind)),
            "shares of result.nc": shares(directory / _folder(kind) / "result.nc"),
        }
        print(kind, json.dumps(row), flush=True)
        yield kind, row


def _folder(kind: str) -> str:
    return kind.replace(", ", "_").replace(" ", "_")


if __name__ == "__main__":
    main()
