"""Compiled trunks: the same numbers, cut at the target; where that cannot be, a flag and the model itself."""

import dataclasses
from functools import partial

import pytest
import torch
from nets import small_net
from torch import Tensor, nn
from torch._dynamo.utils import counters

import erflab
from erflab import compiling
from erflab.compiling import compile_trunk
from erflab.config import OcclusionConfig, RuntimeConfig
from erflab.errors import ConfigError
from erflab.target import Layout, Trunk

QUIET = RuntimeConfig(progress=False, device="cpu", precision="float64", compile=True)
EAGER = dataclasses.replace(QUIET, compile=False)


@pytest.fixture
def _without_a_code_generator(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch.compile's capture of forward and backward graphs, without the minute that generating code takes."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))


class Tail(nn.Module):
    """A body used twice, with an expensive part behind it that must not run."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.tail = small_net().body, nn.Conv2d(4, 4, 1).double()
        self.stem = small_net().stem

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(torch.relu(self.body(torch.relu(self.body(self.stem(x))))))


@pytest.mark.usefixtures("_without_a_code_generator")
@pytest.mark.parametrize(
    ("method", "layer"),
    [("gradient", "body:0"), ("occlusion", "body")],
)
def test_a_compiled_trunk_gives_the_same_map(method: str, layer: str) -> None:
    images = torch.randn(5, 3, 16, 16)
    settings = {"occlusion": OcclusionConfig(step=1, patch=4)} if method == "occlusion" else {}
    found, expected = (
        erflab.measure(Tail(), images, layer, method=method, runtime=runtime, **settings) for runtime in (QUIET, EAGER)
    )
    assert float(abs(found.map() - expected.map()).max()) <= 1e-12 * float(expected.map().max())
    assert "not_compiled" not in [flag.code for flag in found.flags]


@pytest.mark.usefixtures("_without_a_code_generator")
def test_what_lies_behind_the_target_is_cut_away() -> None:
    net = Tail()
    trunk = Trunk(net, "body", 1, Layout("nchw", (8, 8)))
    assert compile_trunk(trunk, torch.randn(1, 3, 16, 16, dtype=torch.float64)) is None
    net.tail = nn.Conv2d(99, 1, 1)  # would raise, and would be compiled anew, if it were run
    assert trunk(torch.randn(1, 3, 16, 16, dtype=torch.float64)).shape == (1, 4, 8, 8)


@pytest.mark.usefixtures("_without_a_code_generator")
def test_every_measurement_of_a_process_is_compiled() -> None:
    """torch gives up on code that it has compiled eight times, of whichever models."""
    for channels in range(1, 11):
        before = counters["stats"]["unique_graphs"]
        trunk = Trunk(nn.Conv2d(3, channels, 1), "(output)", 0, Layout("nchw", (4, 4)))
        assert compile_trunk(trunk, torch.randn(1, 3, 4, 4)) is None
        assert counters["stats"]["unique_graphs"] > before


@pytest.mark.usefixtures("_without_a_code_generator")
def test_a_few_flipped_relus_are_the_same_and_more_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    trunk, expected = Trunk(small_net(), "(output)", 0, Layout("nchw", (4, 4))), compiling._pass
    for share, told in ((0.03, None), (0.1, "the compiled trunk gives another output or gradient")):

        def apart(trunk: Trunk, images: Tensor, share: float = share) -> tuple[Tensor, Tensor]:
            units, gradient = expected(trunk, images)
            return units, gradient * (1 + share * (trunk._other is not None))

        monkeypatch.setattr(compiling, "_pass", apart)
        assert compile_trunk(trunk, torch.randn(1, 3, 16, 16, dtype=torch.float64)) == told
        trunk.run_by(None)


class Branching(nn.Module):
    """Control flow on values, which cannot be traced symbolically."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.head(y if y.shape[0] and float(y.detach().sum()) > -1e9 else -y)


def test_a_model_that_cannot_be_cut_is_run_whole_and_says_so() -> None:
    torch.manual_seed(0)
    net, images = Branching(), torch.randn(3, 3, 12, 12)
    trunk = Trunk(net, "conv", 0, Layout("nchw", (12, 12)))
    reason = compile_trunk(trunk, images)
    assert reason is not None
    assert torch.equal(trunk(images), net.conv(images))


def test_several_targets_and_methods_with_hooks_are_not_compiled() -> None:
    images = torch.randn(2, 3, 16, 16)
    result = erflab.measure(small_net(), images, ["stem", "body"], runtime=QUIET)
    assert [flag.seen for part in result for flag in part.flags if flag.code == "not_compiled"] == [
        "several targets share a forward pass"
    ] * 2
    with pytest.raises(ConfigError, match=r"runtime.compile is true, and deeplift does not run as compiled code"):
        erflab.measure(small_net(), images, "stem", method="deeplift", runtime=QUIET)


@pytest.mark.cuda
@pytest.mark.filterwarnings("default")  # of the code generator, which would stop it
def test_generated_code_gives_the_same_map() -> None:
    images = torch.randn(5, 3, 16, 16)
    results = [
        erflab.measure(small_net(), images, runtime=dataclasses.replace(r, device="cuda")) for r in (QUIET, EAGER)
    ]
    found, expected = (result.map() for result in results)
    assert "not_compiled" not in [flag.code for flag in results[0].flags]
    assert float(abs(found - expected).max()) <= 1e-12 * float(expected.max())
