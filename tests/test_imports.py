import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from erflab.errors import ConfigError
from erflab.imports import import_object

OWN = """
import os
from torch import nn

class Net(nn.Module):
    pass

def factory():
    return Net()

SIZE = 3
"""


@pytest.fixture
def own_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A package of the user's: `ownpkg.nets`, and `ownpkg.broken`, which fails while importing."""
    package = tmp_path / "ownpkg"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "nets.py").write_text(OWN)
    (package / "broken.py").write_text("import a_module_that_is_nowhere\n")
    (tmp_path / "ownpkgs.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield "ownpkg"
    for name in [name for name in sys.modules if name.split(".")[0] in ("ownpkg", "ownpkgs")]:
        del sys.modules[name]


def imported(path: str, allow: tuple[str, ...] = ()) -> object:
    return import_object(path, allow=allow, setting="model._target_")


@pytest.mark.parametrize(
    "path",
    [
        "torch.nn.Conv2d",
        "torch.nn.modules.conv.Conv2d",
        "torchvision.models.ResNet",
        "torchvision.models.resnet18",
        "torchvision.models.segmentation.fcn_resnet50",
        "torchvision.datasets.FakeData",
        "timm.models.resnet.ResNet",
        "timm.models.resnet18",
        "timm.models.vision_transformer.VisionTransformer",
    ],
)
def test_library_classes_and_builders_are_taken(path: str) -> None:
    value = imported(path)
    assert value.__name__ == path.rpartition(".")[2]


@pytest.mark.parametrize(
    "path",
    [
        "torch.load",
        "torch.hub.load",
        "torch.jit.load",
        "torch.utils.cpp_extension.load",
        "torch.hub.load_state_dict_from_url",
        "torchvision.models.get_model",
        "torchvision.models._api.load_state_dict_from_url",
        "timm.create_model",
        "timm.models.load_state_dict",
        "timm.models.load_checkpoint",
        "erflab.imports.import_object",
        "torch.Tensor",
    ],
)
def test_other_library_functions_are_refused(path: str) -> None:
    with pytest.raises(ConfigError, match=r"no nn\.Module or Dataset class and no model builder.*may execute code"):
        imported(path)


@pytest.mark.parametrize("path", ["torch.os.system", "timm.layers.helpers.collections.abc.Callable", "torch.sys.exit"])
def test_the_way_does_not_lead_through_a_librarys_own_imports(path: str) -> None:
    with pytest.raises(ConfigError, match=r"leaves its package|has no"):
        imported(path)


@given(
    st.sampled_from(["os.system", "subprocess.run", "builtins.eval", "torchx.Net", "torch_evil.nn.Net", ".torch", ""])
)
def test_other_packages_are_refused(path: str) -> None:
    with pytest.raises(ConfigError, match=r"torch, torchvision, timm, erflab; .*runtime\.allow=\[\w+\]"):
        imported(path)


def test_own_packages_need_allowing(own_package: str) -> None:
    with pytest.raises(ConfigError, match=r"if you trust it, runtime\.allow=\[ownpkg\]"):
        imported("ownpkg.nets.Net")
    assert "ownpkg" not in sys.modules, "a refused package must not be imported"
    assert issubclass(imported("ownpkg.nets.Net", ("ownpkg",)), nn.Module)
    assert isinstance(imported("ownpkg.nets.factory", ("ownpkg.nets",))(), nn.Module)


def test_prefixes_match_whole_parts(own_package: str) -> None:
    with pytest.raises(ConfigError, match=r"outside the allowed packages .*runtime\.allow=\[ownpkg,ownpkgs\]"):
        imported("ownpkgs.Net", ("ownpkg",))
    with pytest.raises(ConfigError, match="outside the allowed packages"):
        imported("ownpkg.nets.Net", ("ownpkg.other",))


def test_an_own_packages_imports_are_not_parts_of_it(own_package: str) -> None:
    with pytest.raises(ConfigError, match="leaves its package for 'os'"):
        imported("ownpkg.nets.os.system", ("ownpkg",))


def test_close_names_are_offered(own_package: str) -> None:
    with pytest.raises(ConfigError, match=r"'torch.nn' has no 'Conv2D'\. Did you mean 'Conv2d'"):
        imported("torch.nn.Conv2D")
    with pytest.raises(ConfigError, match=r"'ownpkg' has no 'net'\. Did you mean 'nets'"):
        imported("ownpkg.net.Net", ("ownpkg",))
    with pytest.raises(
        ConfigError, match=r"no module 'ownpk'; install it or run from its folder\. Did you mean 'ownpkg"
    ):
        imported("ownpk.nets.Net", ("ownpk",))


def test_a_module_that_fails_to_import_says_why(own_package: str) -> None:
    with pytest.raises(ConfigError, match=r"importing 'ownpkg\.broken' failed: ModuleNotFoundError.*a_module_that_is"):
        imported("ownpkg.broken.Net", ("ownpkg",))


def test_only_callables_are_taken(own_package: str) -> None:
    with pytest.raises(ConfigError, match="a int; name a class or a function"):
        imported("ownpkg.nets.SIZE", ("ownpkg",))
    with pytest.raises(ConfigError, match="a module; name a class"):
        imported("torch.nn")


def test_what_the_user_allows_by_name_is_taken() -> None:
    assert imported("torch.load", ("torch.load",)) is torch.load
