"""The command line from end to end: files of a run, and bad input that gets one line and leaves nothing half-written."""

import io
import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow
from sweeping import erflab as run_in_process

import erflab
from erflab import cli

FAST = [
    "model=resnet18",
    "target.layer=layer1",
    "images=noise",
    "images.count=2",
    "images.size=64",
    "attribution=gradient",
    "runtime.progress=false",
    "runtime.figures=false",
    "runtime.device=cpu",
]


def invoke(arguments: list[str], directory: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the console entry in this process; its exit code."""
    monkeypatch.chdir(directory)
    return run_in_process(monkeypatch, *arguments, "hydra.run.dir=out", "hydra/job_logging=none")


def test_a_run_leaves_result_summary_figures_and_configuration(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "erflab",
        *FAST,
        "runtime.figures=true",
        "runtime.progress=true",
        "hydra.run.dir=out",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    assert Path(done.stdout.strip().splitlines()[-1]).resolve() == out.resolve()
    assert "2/2" in done.stderr  # the progress bar
    for word in ("ERF sigma", "TRF size", "R^2", "resnet18", "layer1"):
        assert word in done.stdout
    files = {str(f.relative_to(out)) for f in out.rglob("*") if f.is_file()}
    assert files == {
        "result.nc",
        "summary.json",
        "provenance.json",
        "run.log",
        "figures/erf.pdf",
        "figures/erf.png",
        ".hydra/config.yaml",
        ".hydra/hydra.yaml",
        ".hydra/overrides.yaml",
    }
    assert "measuring resnet18" in (out / "run.log").read_text()
    summary = json.loads((out / "summary.json").read_text())
    assert summary["gradient.sigma"]["value"] == erflab.load(out).sizes().quantities["sigma"].value
    assert summary["trf_size_y"] == {"value": 43, "unit": "px", "standard_error": None, "interval": None}


def test_every_attribution_composes_runs_and_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mytiny.py").write_text(
        "from torch import nn\n"
        "def tiny():\n    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 2, 3))\n"
    )
    methods = ["gradient", "occlusion", "input_x_gradient", "integrated_gradients", "guided_backprop", "deeplift"]
    arguments = [
        *(f for f in FAST if f.split("=")[0] not in ("model", "target.layer", "attribution", "runtime.figures")),
        *("model=custom", "model._target_=mytiny.tiny", "runtime.allow=[mytiny]"),
        f"attribution=[{','.join(methods)}]",
        *("attribution.integrated_gradients.steps=8", "attribution.deeplift.baseline=blur"),
    ]
    assert invoke(arguments, tmp_path, monkeypatch) == 0
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert all(summary[f"{method}.sigma"]["value"] > 0 for method in methods)
    assert (tmp_path / "out" / "figures" / "erf.png").exists()
    config = erflab.load(tmp_path / "out").attribute("config")["attribution"]
    assert config["integrated_gradients"]["steps"] == 8
    assert config["deeplift"]["baseline"] == "blur"


class Malicious:
    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("canary"),)


def prepare(directory: Path) -> None:
    """The files that the bad inputs name."""
    (directory / "empty").mkdir()
    (directory / "photos").mkdir()
    picture = np.random.default_rng(0).integers(0, 255, (80, 80, 3), dtype=np.uint8)
    for k in range(5):
        Pillow.fromarray(picture).save(directory / "photos" / f"{k}.png")
    whole = io.BytesIO()
    Pillow.fromarray(picture).save(whole, "JPEG")
    (directory / "photos" / "broken.jpg").write_bytes(whole.getvalue()[:700])
    (directory / "evil.pth").write_bytes(pickle.dumps(Malicious()))
    torch.save({"conv1.weight": torch.zeros(64, 3, 3, 3)}, directory / "misfit.pth")
    (directory / "mynets.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Nan(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.conv = nn.Conv2d(3, 2, 3, padding=1)\n"
        "    def forward(self, x):\n        return torch.sqrt(self.conv(x) * 0.0 - 1.0) * x[:, :1]\n"
    )


BAD = [
    (["model=resnt18"], "resnt18.*Did you mean.*resnet18"),
    (["target.layer=layer9"], "no layer 'layer9'.*Did you mean 'layer4'"),
    (["target.layer=fc"], "layer 'fc' has output shape .*no grid of more than one unit"),
    (["target.unit=[99,0]"], r"unit \[99, 0\] is outside the 16x16 grid of layer 'layer1'"),
    (["target.channel=999"], "channel 999 of layer 'layer1', which has 64 channels"),
    (["images=folder", "images.path=empty"], "empty"),
    (["images=folder", "images.path=nowhere"], "nowhere"),
    (["images=folder", "images.path=photos", "images.count=8"], "broken.jpg"),
    (["images=photographs", "images.size=1200"], "images.fit=reflect or images.fit=resize"),
    (["model.weights=misfit.pth"], "conv1.weight"),
    (["model.weights=evil.pth"], "evil.pth"),
    (["model.weights=missing.pth"], "missing.pth"),
    (["runtime.device=cuda:7"], r"runtime.device is 'cuda:7', and torch sees \d+ CUDA device"),
    (["runtime.device=tpu"], "runtime.device is 'tpu'; give auto, cpu, cuda, cuda:N or spread"),
    (["model=inception_v3", "target.layer=Mixed_7c", "images.size=20"], r"does not run at input size \(20, 20\)"),
    (["model=custom", "model._target_=mynets.Nan"], r"runtime.allow=\[mynets\]"),
    (
        ["model=custom", "model._target_=mynets.Nan", "runtime.allow=[mynets]", "target.layer=null"],
        "gradient of layer.*not finite for image.*0",
    ),
    (["target.layr=layer1"], "Did you mean 'target.layer'"),
    (["attribution.occlusion.patch=4"], "attribution.occlusion.patch is an option of attribution=occlusion"),
    (["images.path=photos"], "images.path is an option of images=folder"),
    (["images.count=many"], "images.count=many: Value 'many' of type 'str' could not be converted to Integer"),
    (["attribution=[gradient,gradcam]"], "attribution has no option 'gradcam'; choose from deeplift, gradient"),
    (["hydra/launcher=slrm"], "hydra/launcher has no option 'slrm'; choose from basic, .*Did you mean 'slurm'"),
    (
        ["images.path=a b=c"],
        "'images.path=a b=c' cannot be read as OPTION=VALUE; a value that holds any of = .*is quoted once more",
    ),
    (["experiment=depth_law"], r"use \+experiment=depth_law"),
]


@pytest.mark.parametrize(("overrides", "message"), BAD, ids=[" ".join(o) for o, _ in BAD])
def test_bad_input_gets_one_line_and_leaves_nothing_half_written(
    overrides: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    prepare(tmp_path)
    kept = [f for f in FAST if f.split("=")[0] not in {o.split("=")[0] for o in overrides}]
    assert invoke([*kept, *overrides], tmp_path, monkeypatch) == 1
    told = capfd.readouterr().err
    assert re.search(rf"^erflab: error:.*{message}", told, re.MULTILINE), told
    assert told.count("erflab: error:") == 1
    assert "Error executing job" not in told
    assert not (tmp_path / "canary").exists()
    assert not [f for f in tmp_path.rglob("*") if f.name in ("result.nc", "summary.json") or f.suffix == ".pdf"]


def test_skip_counts_and_lists_what_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    prepare(tmp_path)
    kept = [f for f in FAST if not f.startswith("images=")]
    arguments = [*kept, "images=folder", "images.path=photos", "images.count=6", "images.on_error=skip"]
    arguments.append("runtime.progress=true")
    assert invoke(arguments, tmp_path, monkeypatch) == 0
    record = erflab.load(tmp_path / "out").attribute("images")
    assert [s["name"] for s in record["skipped"]] == ["broken.jpg"]
    assert len(record["files"]) == 5
    assert all(len(f["sha256"]) == 64 for f in record["files"])
    assert "1 picture(s) cannot be read and were skipped: broken.jpg" in capfd.readouterr().out


def test_what_is_no_verb_is_told(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_in_process(monkeypatch, "collct", "runs") == 1
    assert "no verb 'collct'; there are collect, diff, " in capfd.readouterr().err
    assert run_in_process(monkeypatch, "--version") == 0
    assert capfd.readouterr().out == f"erflab {erflab.__version__}\n"


def test_a_directory_that_cannot_be_made_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert run_in_process(monkeypatch, *FAST, f"hydra.run.dir={tmp_path}/file/run") == 1
    assert re.fullmatch(
        "erflab: error: .*Not a directory.*file/run'; give directories .*that can be read and written.*\n",
        capfd.readouterr().err,
    )


@pytest.mark.parametrize(("sweep", "where"), [([], "hydra.run.dir=/.*/out "), (["-m"], "hydra.sweep.dir=sweep ")])
def test_an_interrupt_says_how_to_go_on(
    sweep: list[str], where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("erflab.job.run_job", interrupted)
    assert invoke([*sweep, *FAST, "hydra.sweep.dir=sweep"], tmp_path, monkeypatch) == 130
    told = capfd.readouterr().err
    assert re.fullmatch(f"erflab: interrupted; the same command with {where}goes on from what was saved.\n", told)


def test_the_traceback_is_shown_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(cli.FULL_ERROR, "1")
    monkeypatch.setattr(
        sys, "argv", ["erflab", *FAST, "target.layer=nowhere", "hydra.run.dir=out", "hydra/job_logging=none"]
    )
    with pytest.raises(erflab.ErflabError, match="no layer 'nowhere'"):
        cli.main()


def test_a_sweep_runs_every_job(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "erflab",
        "-m",
        *FAST,
        "target.layer=layer1,maxpool",
        "hydra.sweep.dir=sweep",
        "hydra.sweep.subdir=${target.layer}",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    sizes = {name: erflab.load(tmp_path / "sweep" / name).attribute("theory")["size"] for name in ("layer1", "maxpool")}
    assert sizes == {"layer1": [43, 43], "maxpool": [11, 11]}
