"""The predicted field against closed forms, exact Jacobians and sampled gradient energies."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from torch import nn

from erflab.analysis import moments
from erflab.attribution.base import Aim, Batch
from erflab.attribution.gradient import gradient_maps
from erflab.errors import ConfigError, UnknownOperationError
from erflab.target import Trunk
from erflab.theory.energy_rules.meanfield import EnergyRule
from erflab.theory.energy_rules.moments import Moments
from erflab.theory.predicted import PredictedField, predicted_field
from erflab.theory.rules import RULES, pointwise, register_rule


def seeded(build, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().eval().requires_grad_(False)


def exact_energy(model, field, image):
    """sum_k sum_c J^2 at the unit on one image, from the full Jacobian in float64."""

    def units(x):
        output = field.layout.fold(model(x))
        return output[(0, slice(None), *field.unit)]

    jacobian = torch.autograd.functional.jacobian(units, image)
    return jacobian[:, 0].square().sum((0, 1)).numpy()


def noise(count, channels, size, seed=1, dtype=torch.float32):
    return torch.randn(count, channels, *size, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def measured(model, field, images):
    """Mean energy map, sampled with one sign vector an image."""
    trunk = Trunk(model, field.layer, field.call, field.layout)
    indices = tuple(range(len(images)))
    maps = gradient_maps(trunk, Batch(images, indices, tuple(map(str, indices))), Aim((field.unit,)), "energy")
    return maps.double().mean(0).numpy()


def like(prediction: PredictedField, values) -> xr.DataArray:
    return prediction.map.copy(data=values)


class Applied(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


class Fold(nn.Module):
    def forward(self, x):
        return nn.functional.fold(x.reshape(1, 16, 30), (12, 10), 2, stride=2)


def assigned(x):
    y = x.clone()
    y[:, :, ::2, 1] = x[:, :, 1::2, 7]
    y[:, 1] = x[:, 3]
    return y


def assigned_by_number(x, *, accumulate):
    rows, columns = torch.tensor([1, 6, 0]), torch.tensor([2, 5, 0])
    return (
        x.permute(2, 3, 0, 1)
        .index_put((rows, columns), x[:, :, 9, :3].permute(2, 0, 1), accumulate)
        .permute(2, 3, 0, 1)
    )


def checkers():
    return (torch.arange(12)[:, None] + torch.arange(10)) % 2 == 0


# --- exact cases ----------------------------------------------------------------------------------------------------------


def test_one_convolution_is_exact():
    model = seeded(lambda: nn.Conv2d(3, 5, 5, stride=2, padding=2, dilation=1)).double()
    prediction = predicted_field(model, input_size=(16, 20), unit=(3, 4))
    truth = exact_energy(model, prediction.field, noise(1, 3, (16, 20), dtype=torch.float64))
    np.testing.assert_allclose(prediction.map.values, truth, atol=1e-15)
    assert prediction.map.dims == ("y", "x")
    peak = prediction.map.sel(y=0, x=0)  # the unit's centre is the middle tap
    assert float(peak) == pytest.approx(float(model.weight[:, :, 2, 2].square().sum()))


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Conv2d(4, 4, 3, padding=1, groups=2),
        lambda: nn.ConvTranspose2d(4, 3, 4, stride=2, padding=1),
        lambda: nn.Conv2d(4, 3, 3, dilation=2, padding="same"),
        lambda: nn.AvgPool2d(3, 2, padding=1),
        lambda: nn.AvgPool2d(3, 2, padding=1, count_include_pad=False, ceil_mode=True),
        lambda: nn.AdaptiveAvgPool2d((3, 5)),
        lambda: nn.Upsample(scale_factor=2, mode="bilinear"),
        lambda: nn.Upsample(size=(15, 30), mode="bicubic", align_corners=True),
        lambda: nn.Upsample(scale_factor=2, mode="nearest"),
        lambda: nn.Upsample(size=(7, 23), mode="nearest-exact"),
        lambda: Applied(lambda x: nn.functional.interpolate(x, (5, 7), mode="bilinear", antialias=True)),
        lambda: Applied(lambda x: nn.functional.interpolate(x, (5, 7), mode="bicubic", antialias=True)),
        lambda: Applied(lambda x: x.tril(1)),
        lambda: nn.Sequential(nn.Unfold(3, padding=1, stride=2), nn.Unflatten(2, (6, 5))),
        lambda: Fold(),
        lambda: Applied(lambda x: assigned_by_number(x, accumulate=False)),
        lambda: Applied(lambda x: assigned_by_number(x, accumulate=True)),
        lambda: Applied(assigned),
        lambda: Applied(lambda x: x.index_copy(3, torch.tensor([5, 0]), x[..., :2])),
        lambda: Applied(lambda x: x.index_add(2, torch.tensor([6, 0]), x[:, :, 1:3])),
        lambda: Applied(lambda x: x.scatter(1, torch.ones(1, 1, 12, 10, dtype=torch.long), x[:, 2:3])),
        lambda: Applied(lambda x: x.gather(1, torch.tensor([3, 0]).reshape(1, 2, 1, 1).expand(1, 2, 12, 10))),
        lambda: Applied(lambda x: torch.stack([x[:, 0], x[:, 2], torch.ones_like(x[:, 1])], 1)),
        lambda: Applied(lambda x: torch.where(checkers(), x, x.flip(1))),
        lambda: Applied(lambda x: x.masked_fill(checkers(), 3.0)),
        lambda: nn.Sequential(nn.ReplicationPad2d(2), nn.Conv2d(4, 2, 1)),
        lambda: nn.BatchNorm2d(4),
        lambda: nn.Sequential(nn.ReflectionPad2d(2), nn.Conv2d(4, 2, 1)),
        lambda: nn.PixelShuffle(2),
        lambda: nn.PixelUnshuffle(2),
        lambda: nn.ChannelShuffle(2),
        lambda: nn.Sequential(nn.Flatten(2), nn.Unflatten(2, (12, 10))),
    ],
)
@pytest.mark.parametrize("unit", ["corner", "center"])
@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
def test_single_linear_layers_are_exact(build, unit):
    model = seeded(build).double()
    prediction = predicted_field(nn.Sequential(model), "0", (12, 10), unit, channels=4)
    truth = exact_energy(model, prediction.field, noise(1, 4, (12, 10), dtype=torch.float64))
    np.testing.assert_allclose(prediction.map.values, truth, atol=1e-12)


def test_depthwise_identity_leaves_one_pixel():
    model = nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False).requires_grad_(False)
    model.weight.zero_()[:, 0, 1, 1] = 1
    prediction = predicted_field(nn.Sequential(model, nn.Identity()), "1", (9, 9))
    assert prediction.total == 3
    assert repr(prediction) == "PredictedField('1', 'data_free', unit=(4, 4), total=3, map 9 x 9 px)"
    assert float(prediction.map.sel(y=0, x=0)) == 3


@pytest.mark.parametrize(
    "norm", [nn.GroupNorm(2, 6), nn.GroupNorm(1, 6), nn.InstanceNorm2d(6, affine=True), nn.Tanh(), nn.GELU()]
)
def test_calibrated_is_exact_for_one_layer_that_is_not_linear(norm):
    model = norm.double().eval().requires_grad_(False)
    if hasattr(model, "weight"):
        model.weight.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(0))
    image = noise(1, 6, (5, 4), dtype=torch.float64)
    prediction = predicted_field(nn.Sequential(model), "0", (5, 4), channels=6, variant="calibrated", images=image)
    np.testing.assert_allclose(prediction.map.values, exact_energy(model, prediction.field, image), rtol=1e-9)


class ChannelsLast(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(6)

    def forward(self, x):
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def test_calibrated_layer_norm_is_exact():
    model = ChannelsLast().double().requires_grad_(False)
    model.norm.weight.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(0))
    image = noise(1, 6, (4, 4), dtype=torch.float64)
    prediction = predicted_field(model, None, (4, 4), channels=6, variant="calibrated", images=image)
    np.testing.assert_allclose(
        prediction.map.values, exact_energy(model, prediction.field, image), rtol=1e-9, atol=1e-12
    )


class Norm(nn.Module):
    def forward(self, x):
        return x.norm(dim=(2, 3), keepdim=True).expand(-1, -1, 5, 5)


def test_calibrated_euclidean_norm_is_exact():
    image = noise(1, 2, (5, 5), dtype=torch.float64)
    prediction = predicted_field(Norm(), None, (5, 5), channels=2, variant="calibrated", images=image)
    np.testing.assert_allclose(prediction.map.values, exact_energy(Norm(), prediction.field, image), rtol=1e-9)
    assert predicted_field(Norm(), None, (5, 5), channels=2).total == pytest.approx(2, rel=1e-6)


def test_calibrated_max_pool_after_a_convolution_is_exact():
    model = seeded(lambda: nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.MaxPool2d(3, 2, 1))).double()
    image = noise(1, 1, (11, 11), dtype=torch.float64)
    prediction = predicted_field(model, "2", (11, 11), variant="calibrated", images=image)
    np.testing.assert_allclose(prediction.map.values, exact_energy(model, prediction.field, image), atol=1e-15)


# --- known values ---------------------------------------------------------------------------------------------------------


def linear_stack(depth, uniform=True, channels=1):
    layers = [nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(depth)]
    if uniform:
        for layer in layers:
            nn.init.constant_(layer.weight, 1 / 9)
    return nn.Sequential(*layers).eval().requires_grad_(False)


@pytest.mark.parametrize("depth", [5, 10, 20])
def test_uniform_weights_show_the_mean_field_gap(depth):
    """Prediction: n steps of variance (k^2 - 1) / 12. Truth: REFERENCE's `energy` column, smaller by sqrt 2."""
    size = 2 * depth + 1
    prediction = predicted_field(linear_stack(depth), input_size=(size, size))
    assert prediction.sigma == pytest.approx(math.sqrt(depth * 8 / 12), rel=1e-5)
    kernel = np.ones(1)
    for _ in range(depth):
        kernel = np.convolve(kernel, np.ones(3))
    exact = moments(like(prediction, np.outer(kernel, kernel) ** 2)).sigma
    assert exact == pytest.approx({5: 1.343, 10: 1.861, 20: 2.607}[depth], abs=5e-4)
    assert prediction.sigma / exact == pytest.approx(math.sqrt(2), rel=0.05)


def test_random_linear_stack_agrees_on_average_over_weights():
    totals, sigmas = [], []
    for seed in range(12):
        model = seeded(lambda: linear_stack(4, uniform=False, channels=8), seed).double()
        prediction = predicted_field(model, input_size=(9, 9))
        truth = exact_energy(model, prediction.field, noise(1, 8, (9, 9), dtype=torch.float64))
        totals.append(truth.sum() / prediction.total)
        sigmas.append(moments(like(prediction, truth)).sigma / prediction.sigma)
    assert np.mean(totals) == pytest.approx(1, abs=0.05)
    assert np.mean(sigmas) == pytest.approx(1, abs=0.02)


def test_a_rectifier_before_a_max_pool_is_active_at_the_selected_unit():
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.ReLU(), nn.MaxPool2d(2)).eval()
    nn.init.ones_(model[0].weight)
    prediction = predicted_field(model, "2", (8, 8))
    assert prediction.total == pytest.approx(1 - 2**-4, rel=2e-3)
    alone = predicted_field(model, "1", (8, 8))
    assert alone.total == pytest.approx(1 / 2, rel=1e-5)
    np.testing.assert_allclose(prediction.map.values[prediction.map.values > 0], prediction.total / 4, rtol=1e-5)


def test_branches_add_and_gates_weigh():
    class Gate(nn.Module):
        def forward(self, x):
            return x * x.mean((2, 3), keepdim=True) + x - 0.5 * x

    prediction = predicted_field(Gate(), input_size=(4, 4), channels=1, unit=(1, 1))
    # x gets E[mean^2] = 1/16 + 1 + 1/4, and every pixel E[x^2] / 16^2 through the mean
    assert float(prediction.map[1, 1]) == pytest.approx(1 / 16 + 1 + 1 / 4 + 1 / 256, rel=1e-5)
    assert float(prediction.map[3, 3]) == pytest.approx(1 / 256, rel=1e-5)


def test_gradients_that_vanish_with_depth_are_told_layer_by_layer():
    model = nn.Sequential(*[nn.Conv2d(1, 1, 1, bias=False) for _ in range(30)]).requires_grad_(False)
    for layer in model:
        nn.init.constant_(layer.weight, 1e-2)
    prediction = predicted_field(model, "29", (5, 5))
    assert prediction.total == pytest.approx(1e-120, rel=1e-4)  # far below float32's smallest
    assert prediction.layer_energy["29"] == 1
    assert prediction.layer_energy["9"] == pytest.approx(1e-80, rel=1e-4)


# --- real networks --------------------------------------------------------------------------------------------------------


def test_random_resnet18_matches_its_sampled_field():
    """Running statistics at their initial 0 and 1, white noise, 128 px: sigma within 3 %, total within 10 %."""
    torchvision = pytest.importorskip("torchvision")
    model = seeded(lambda: torchvision.models.resnet18(weights=None))
    size = (128, 128)
    free = predicted_field(model, "layer3", size)
    calibrated = predicted_field(model, "layer3", size, variant="calibrated", images=noise(4, 3, size, seed=2))
    truth = like(free, measured(model, free.field, noise(96, 3, size)))
    sigma, total = moments(truth).sigma, float(truth.sum())
    assert free.sigma == pytest.approx(sigma, rel=0.03)
    assert calibrated.sigma == pytest.approx(sigma, rel=0.03)
    assert calibrated.total == pytest.approx(total, rel=0.1)


def test_attention_follows_the_value_path_and_says_so():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Conv2d(3, 8, 4, stride=4)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

        def forward(self, x):
            tokens = self.embed(x).flatten(2).transpose(1, 2)
            return tokens + self.attention(tokens, tokens, tokens, need_weights=False)[0]

    model = seeded(Attention)
    for variant, images in (("data_free", None), ("calibrated", noise(2, 3, (16, 16)))):
        prediction = predicted_field(model, None, (16, 16), variant=variant, images=images)
        assert any("value path only" in line for line in prediction.assumptions)
        assert bool((prediction.map > 0).all())  # every token is read


# --- interface ------------------------------------------------------------------------------------------------------------


def test_the_model_is_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True)).train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    predicted_field(model, "2", (9, 9), variant="calibrated", images=noise(2, 3, (9, 9)))
    assert model.training
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "calibrate"}, "Did you mean 'calibrated'"),
        ({"variant": "calibrated"}, r"needs images of shape \[B, 3, 9, 9\], got none"),
        ({"variant": "calibrated", "images": torch.zeros(2, 3, 8, 9)}, r"got shape \(2, 3, 8, 9\)"),
        ({"images": torch.zeros(2, 3, 9, 9)}, "data_free reads none"),
    ],
)
def test_settings_that_cannot_be_used(settings, message):
    with pytest.raises(ConfigError, match=message):
        predicted_field(nn.Conv2d(3, 4, 3), input_size=(9, 9), **settings)


def test_an_unknown_operation_is_named(monkeypatch):
    monkeypatch.setitem(RULES, "aten.tanh", replace(RULES["aten.tanh"], energy=None))
    with pytest.raises(
        UnknownOperationError, match=r"'aten.tanh', met in module '1' on inputs of shape \[\(1, 2, 7, 7\)\]"
    ):
        predicted_field(nn.Sequential(nn.Conv2d(3, 2, 3), nn.Tanh()), "1", (9, 9))


def test_a_users_own_operation_has_a_prediction():
    @torch.library.custom_op("erflab_test::doubled", mutates_args=())
    def doubled(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    @doubled.register_fake
    def _(x):
        return torch.empty_like(x)

    class Net(nn.Module):
        def forward(self, x):
            return doubled(x)

    def expect(call, x):
        return [Moments(2 * call.moments[x].mean, 4 * call.moments[x].var)], ()

    energy = EnergyRule(expect, lambda call, factors, energies, x: [4 * energies[0]])
    name = "erflab_test.doubled"
    try:
        register_rule(name, box=pointwise)
        with pytest.raises(UnknownOperationError, match=rf"no energy rule for operation '{name}'.*energy=\.\.\.\)"):
            predicted_field(Net(), None, (4, 4))
        register_rule(name, box=pointwise, energy=energy, replace=True)
        assert predicted_field(Net(), None, (4, 4)).total == pytest.approx(12)  # 3 channels
        assert predicted_field(Net(), None, (4, 4)).field.support().count == 1
    finally:
        RULES.pop(name, None)


def test_a_recurrence_has_no_prediction_and_says_what_to_do():
    class Rows(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(3, 2, batch_first=True)

        def forward(self, x):
            rows = self.lstm(x[0].permute(1, 2, 0))[0]
            return rows.permute(2, 0, 1)[None]

    with pytest.raises(
        UnknownOperationError, match=r"'aten.lstm', met in module 'lstm'.*choose an earlier layer, or mea"
    ):
        predicted_field(Rows(), "(output)", (6, 6))
