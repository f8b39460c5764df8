"""Runs in TensorBoard and MLflow, read back with the libraries' own readers; and a tracker that fails costs nothing."""

import math
from pathlib import Path

import pytest
import torch
from sweeping import TINY, erflab, folder
from torch import nn

import erflab as lab
from erflab import tracking
from erflab.config import MLflowConfig, RuntimeConfig, TensorBoardConfig, TrackingConfig
from erflab.errors import ConfigError
from erflab.result import Result
from erflab.tracking import refuse_missing, track

__all__ = ["folder"]

RUN = [*TINY, "hydra.run.dir=run"]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """A result of two layers in its directory, with a figure."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))
    runtime = RuntimeConfig(progress=False, device="cpu")
    result = lab.measure(net, torch.randn(8, 3, 16, 16), ["0", "2"], runtime=runtime)
    directory = result.save(tmp_path_factory.mktemp("written"))
    result.plot(directory / "figures" / "areas", kind="areas")
    return result, directory


def expected(result: Result, label: str, key: str, part: str = "value") -> float:
    entry = result.at(label).summary()[key]
    return float(entry["value"] if part == "value" else entry["standard_error"])


def test_tensorboard_holds_numbers_options_flags_and_figures(written: tuple[Result, Path]) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.metadata import SESSION_START_INFO_TAG
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    result, directory = written
    assert track(result, TensorBoardConfig(), directory) == []
    (directory / tracking.TRACKED).write_text(
        "{"
    )  # where the record is lost the run is sent again, and nothing doubled
    assert track(result, TensorBoardConfig(), directory) == []
    events = EventAccumulator(str(directory / "tensorboard")).Reload()
    for name, part in (("sigma", "value"), ("sigma_error", "error")):
        (first, second) = events.Tensors(f"gradient/{name} (px)")
        values = [float(e.tensor_proto.double_val[0]) for e in (first, second)]
        assert values == [expected(result, label, "gradient.sigma", part) for label in ("0", "2")]
        assert (first.step, second.step) == (0, 1)
    assert events.Images("figures/areas")[0].width > 100
    (flags,) = events.Tensors("flags/text_summary")
    assert b"0: gradient: few" in flags.tensor_proto.string_val[0]
    content = HParamsPluginData.FromString(events.SummaryMetadata(SESSION_START_INFO_TAG).plugin_data.content)
    options = content.session_start_info.hparams
    assert options["attribution.gradient.magnitude"].string_value == "energy"
    assert options["images.count"].number_value == 8


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store in files: it takes no database to set up."""
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    return (tmp_path / "mlruns").as_uri()


def test_mlflow_holds_numbers_options_flags_and_files(written: tuple[Result, Path], store: str) -> None:
    from mlflow import MlflowClient

    result, directory = written
    settings = MLflowConfig(uri=store, experiment="fields")
    assert track(result, settings, directory) == []
    assert track(result, settings, directory) == []  # tracked already
    client = MlflowClient(tracking_uri=store)
    (run,) = client.search_runs([client.get_experiment_by_name("fields").experiment_id])
    assert run.info.status == "FINISHED"
    for key, name, part in (("sigma px", "sigma", "value"), ("sigma_error px", "sigma", "error")):
        history = client.get_metric_history(run.info.run_id, f"gradient.{key}")
        found = [m.value for m in sorted(history, key=lambda m: m.step)]
        assert found == [expected(result, label, f"gradient.{name}", part) for label in ("0", "2")]
    assert all(math.isfinite(value) for value in run.data.metrics.values())
    assert run.data.params["attribution.gradient.magnitude"] == "energy"
    assert run.data.params["target.layer"] == '["0", "2"]'
    assert run.data.tags["parts"] == "0, 2"
    assert "0: gradient: few" in run.data.tags["flags"]
    files = {f.path for folder in (None, "figures") for f in client.list_artifacts(run.info.run_id, folder)}
    assert {"summary.json", "provenance.json", "config.json", "figures/areas.png"} <= files


def test_an_mlflow_run_that_breaks_off_is_marked_failed(
    written: tuple[Result, Path], store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    def down(*_: object) -> None:
        raise ConnectionError("server is down")

    monkeypatch.setattr(MlflowClient, "log_artifact", down)
    directory = written[0].save(tmp_path / "run")
    (warning,) = track(written[0], MLflowConfig(uri=store), directory)
    told = "tracking=mlflow failed; the result is kept, and the same command sends it again: ConnectionError: server is down"
    assert warning == told
    client = MlflowClient(tracking_uri=store)
    (run,) = client.search_runs([client.get_experiment_by_name("erflab").experiment_id])
    assert run.info.status == "FAILED"
    assert not (directory / tracking.TRACKED).exists()


def test_long_options_are_cut() -> None:
    pytest.importorskip("mlflow")
    from erflab.tracking.mlflow import PARAM_LENGTH, _key, _text

    assert _text(list(range(1000))).endswith("...")
    assert len(_text(list(range(1000)))) == PARAM_LENGTH
    assert _key("gradient.area_0.5 (px^2)") == "gradient.area_0.5 px2"


def test_a_tracker_that_fails_costs_nothing_and_is_tried_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tensorboard")
    (folder / "events").write_text("a file where the directory should be")
    tracked = [*RUN, "tracking=tensorboard", "tracking.directory=events"]
    warning = "tracking=tensorboard failed; the result is kept, and the same command sends it again"
    for _ in range(2):
        assert erflab(monkeypatch, *tracked) == 0
        assert f"erflab: warning: {warning}" in capfd.readouterr().err
    assert warning in (folder / "run" / "run.log").read_text()
    first = (folder / "run" / "result.nc").read_bytes()
    assert not (folder / "run" / tracking.TRACKED).exists()
    (folder / "events").unlink()
    assert erflab(monkeypatch, *tracked) == 0
    (event,) = (folder / "events" / "run").iterdir()
    content = event.read_bytes()
    assert erflab(monkeypatch, *tracked) == 0  # finished and tracked
    assert [file.read_bytes() for file in (folder / "events" / "run").iterdir()] == [content]
    assert erflab(monkeypatch, *RUN, "runtime.overwrite=true") == 0
    assert (folder / "run" / "result.nc").read_bytes() == first  # whether it is tracked is no part of a result
    assert not (folder / "run" / tracking.TRACKED).exists()


def test_a_package_that_is_missing_is_named_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    refuse_missing(TrackingConfig())
    with pytest.raises(
        ConfigError, match=r"tracking=mlflow needs the package 'mlflow'.*pip install 'erflab\[mlflow\]'"
    ):
        refuse_missing(MLflowConfig())
    with pytest.raises(ConfigError, match=r"pip install 'erflab\[tensorboard\]'"):
        refuse_missing(TensorBoardConfig())
