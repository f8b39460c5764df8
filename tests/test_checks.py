"""Every flag that a measurement raises about its model, field and maps, provoked; and strict runs."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from nets import small_net
from torch import Tensor, nn

import erflab
from erflab.config import InputXGradientConfig, OcclusionConfig, RuntimeConfig
from erflab.errors import ConfigError, FlaggedError
from erflab.flags import FLAGS

QUIET = RuntimeConfig(progress=False, device="cpu")
IMAGES = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def seen(model: nn.Module, images: Tensor = IMAGES, **how: object) -> dict[str, str]:
    return {flag.code: flag.seen for flag in erflab.measure(model, images, **{"runtime": QUIET, **how}).flags}


def convolution(kernel: int = 3) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(3, 4, kernel, padding=kernel // 2)


def test_a_plain_measurement_raises_none_of_them() -> None:
    assert set(seen(nn.Sequential(convolution(), nn.Tanh()))) <= {"few_effective_images", "few_groups", "fit"}


def test_a_field_that_reaches_the_border() -> None:
    assert seen(nn.Sequential(*[nn.Conv2d(3, 3, 9, padding=4) for _ in range(3)]))["erf_clipped"].endswith(
        "of the peak"
    )
    assert "erf_clipped" not in seen(convolution(5), unit=[2, 2])  # as large as the room it has, and not cut


def test_zero_initialised_branches_are_named() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.branch = convolution(), nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4))
            self.after = nn.BatchNorm2d(4)
            nn.init.zeros_(self.branch[1].weight)
            nn.init.zeros_(self.after.weight)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            return self.after(x + self.branch(x))

    assert seen(Residual(), layer="branch")["zero_branches"] == "branch.1.weight"
    assert seen(Residual())["zero_branches"] == "branch.1.weight, after.weight"
    assert "zero_branches" not in seen(Residual(), layer="stem")


def test_a_real_model_with_zero_initialised_residuals() -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("resnet18", zero_init_last=True)
    found = seen(model, torch.randn(1, 3, 64, 64), layer="layer1")
    assert found["zero_branches"] == "layer1.0.bn2.weight, layer1.1.bn2.weight"


def test_statistics_of_the_batch() -> None:
    assert seen(nn.Sequential(convolution(), nn.BatchNorm2d(4, track_running_stats=False)))["batch_statistics"] == "1"


class Normed(nn.Module):
    """A normalisation over channels without weights: their sum vanishes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = convolution(), nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x).movedim(1, -1)).movedim(-1, 1)


@pytest.mark.parametrize("magnitude", ["absolute", "signed"])
def test_a_sum_over_channels_that_vanishes(magnitude: str) -> None:
    assert "channel_sum" in seen(Normed(), magnitude=magnitude)
    assert "channel_sum" not in seen(Normed(), magnitude="energy")
    assert "channel_sum" not in seen(convolution(), magnitude=magnitude)


@pytest.mark.parametrize("magnitude", ["absolute", "signed"])
def test_a_sum_that_vanishes_is_flagged_under_the_method_that_sums(magnitude: str) -> None:
    settings = InputXGradientConfig(magnitude=magnitude)
    methods = ["gradient", "input_x_gradient"]
    result = erflab.measure(Normed(), IMAGES, method=methods, runtime=QUIET, input_x_gradient=settings)
    assert [flag.method for flag in result.flags if flag.code == "channel_sum"] == ["input_x_gradient"]


@pytest.mark.parametrize(
    ("bias", "precision", "flagged"), [(1e7, "fp32", True), (1e7, "float64", False), (1.0, "fp32", False)]
)
def test_an_effect_of_occluding_that_is_drowned_in_rounding(bias: float, precision: str, flagged: bool) -> None:
    """A bias of 1e7 leaves a float32 output one unit to tell of the input."""
    model = nn.Sequential(convolution(), nn.Tanh())
    model[0].bias.data.zero_()
    drowned = nn.Sequential(model, nn.Conv2d(4, 4, 1))
    nn.init.constant_(drowned[1].bias, bias)
    found = seen(drowned, method="occlusion", runtime=dataclasses.replace(QUIET, precision=precision))
    assert ("occlusion_rounding" in found) is flagged


def test_a_unit_that_is_dead_on_some_images() -> None:
    model = nn.Sequential(nn.Conv2d(3, 1, 3, padding=1), nn.ReLU())
    images = torch.cat([IMAGES.abs(), -IMAGES.abs()])
    nn.init.ones_(model[0].weight)
    assert seen(model, images)["dead_images"] == "50% of 8"


@pytest.mark.parametrize(
    ("scale", "magnitude", "flagged"),
    [(1e-25, "energy", False), (1e-38, "energy", True), (1e-25, "absolute", False), (1e-38, "absolute", True)],
)
def test_a_map_near_the_smallest_number(scale: float, magnitude: str, flagged: bool) -> None:
    model = convolution()
    model.weight.data *= scale
    assert ("underflow" in seen(model, magnitude=magnitude)) is flagged
    precise = dataclasses.replace(QUIET, precision="float64")
    assert "underflow" not in {
        f.code for f in erflab.measure(model, IMAGES, magnitude=magnitude, runtime=precise).flags
    }


def test_a_strict_measurement_ends_with_its_flags_and_keeps_its_result() -> None:
    strict = dataclasses.replace(QUIET, strict=True)
    with pytest.raises(
        FlaggedError,
        match=r"runtime.strict refuses \d flag\(s\): .*the image border cuts.*accept=\[[\w,]*,trf_clipped\]",
    ) as caught:
        erflab.measure(small_net().float(), IMAGES, unit="corner", runtime=strict)
    result = caught.value.result
    codes = sorted({flag.code for flag in result.flags})
    accepted = erflab.measure(
        small_net().float(), IMAGES, unit="corner", runtime=dataclasses.replace(strict, accept=codes)
    )
    assert accepted.summary() == result.summary() | {"flags": accepted.summary()["flags"]}


def test_a_strict_run_is_saved_before_it_fails(tmp_path: Path) -> None:
    from erflab.config import AttributionConfig, ErflabConfig, GradientConfig, ModelConfig, NoiseConfig, TargetConfig
    from erflab.report import run_and_save

    config = ErflabConfig(
        model=ModelConfig(name="resnet18"),
        images=NoiseConfig(count=2, size=32),
        attribution=AttributionConfig(gradient=GradientConfig()),
        target=TargetConfig(layer="layer1", unit="corner"),
        runtime=dataclasses.replace(QUIET, strict=True),
    )
    with pytest.raises(FlaggedError, match="trf"):
        run_and_save(config, tmp_path)
    assert "gradient.sigma" in json.loads((tmp_path / "summary.json").read_text())


def test_only_known_flags_can_be_accepted() -> None:
    with pytest.raises(ConfigError, match=r"runtime.accept is 'trf_clip'; choose one of .* Did you mean 'trf_clipped'"):
        RuntimeConfig(accept=["trf_clip"])


def test_every_flag_says_what_to_do() -> None:
    assert all(";" in text for text in FLAGS.values())


def test_images_of_which_two_do_not_fit_in_memory_are_looked_at_one_by_one() -> None:
    class Large(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if len(x) > 1:
                raise MemoryError
            return super().forward(x)

    runtime = RuntimeConfig(progress=False, device="cpu", batch_size=1)
    one = OcclusionConfig(units="one", patch=2, step=2, per_evaluation=1)
    found = erflab.measure(
        Large(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 3)), torch.randn(3, 2, 9, 9), method=["gradient", "occlusion"],
        magnitude="absolute", runtime=runtime, occlusion=one,
    )  # fmt: skip
    assert found.methods == ("gradient", "occlusion")
