"""From a dotted import path in a configuration to the object it names, without handing the configuration a shell."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any

from torch import nn
from torch.utils.data import Dataset

from erflab.errors import ConfigError, closest
from erflab.libraries import is_builder

LIBRARIES = ("torch", "torchvision", "timm", "erflab")


def import_object(path: str, *, allow: Sequence[str] = (), setting: str) -> Callable[..., Any]:
    """The class or function that the dotted `path` names.

    Below torch, torchvision, timm and erflab only classes of `nn.Module` and `Dataset` and the libraries' registered
    model builders are taken: other functions (`torch.load`, `torch.hub.load`) can run code from a file or the network.
    Below a prefix in `allow` (whole dotted parts: "mypkg" covers "mypkg.nets.Net", not "mypkgs") any callable is taken.

    Args:
        path: dotted import path, such as "mypkg.nets.Net".
        allow: prefixes that the user vouches for (`runtime.allow`).
        setting: name of the setting that holds the path, for the messages.

    Raises:
        ConfigError: the prefix is not allowed, there is no such module or attribute (closest names are listed), the
            module fails to import, or the object is not of an accepted kind.
    """
    prefixes = (*LIBRARIES, *allow)
    if not _below(path, prefixes):
        raise ConfigError(
            f"{setting} is {path!r}, outside the allowed packages {', '.join(prefixes)}; "
            f"if you trust it, runtime.allow=[{','.join([*allow, path.split('.')[0] or 'mypkg'])}]."
        )
    value = _walk(path, prefixes, setting)
    if not callable(value):
        raise ConfigError(f"{setting} is {path!r}, a {type(value).__name__}; name a class or a function.")
    if not _below(path, allow) and not _is_accepted(value):
        raise ConfigError(
            f"{setting} is {path!r}, which is no nn.Module or Dataset class and no model builder; anything else in "
            f"{', '.join(LIBRARIES)} is refused, since it may execute code. Name the class, or use model.name."
        )
    return value


def _below(path: str, prefixes: Iterable[str]) -> bool:
    return any(path == prefix or path.startswith(prefix + ".") for prefix in prefixes)


def _is_accepted(value: object) -> bool:
    if isinstance(value, type):
        return issubclass(value, (nn.Module, Dataset))
    return is_builder(value)


def _walk(path: str, prefixes: Iterable[str], setting: str) -> object:
    first, *rest = path.split(".")
    value: object = _import_module(first, path, setting)
    for part in rest:
        value = _step(value, part, path, setting)
        # A module's own imports are its attributes too: "mypkg.os.system" must not pass for a part of mypkg.
        if isinstance(value, ModuleType) and not _leads_to(value.__name__, prefixes):
            raise ConfigError(
                f"{setting} is {path!r}, which leaves its package for {value.__name__!r}; name that directly."
            )
    return value


def _leads_to(module: str, prefixes: Iterable[str]) -> bool:
    """Whether `module` lies below an allowed prefix, or on the way down to one."""
    return _below(module, prefixes) or any(_below(prefix, [module]) for prefix in prefixes)


def _step(parent: object, part: str, path: str, setting: str) -> object:
    if hasattr(parent, part):
        return getattr(parent, part)
    if isinstance(parent, ModuleType) and part in _submodules(parent):
        return _import_module(f"{parent.__name__}.{part}", path, setting)
    owner = getattr(parent, "__name__", type(parent).__name__)
    near = closest(part, sorted({*dir(parent), *_submodules(parent)}))
    raise ConfigError(f"{setting} is {path!r}, but {owner!r} has no {part!r}.{near or ' Check the spelling.'}")


def _submodules(parent: object) -> list[str]:
    return [module.name for module in pkgutil.iter_modules(getattr(parent, "__path__", []))]


def _import_module(name: str, path: str, setting: str) -> ModuleType:
    # A name with a dot gets here only after `_submodules` found it; the top level is looked up before it is run, so
    # that "not installed" and "fails while importing" are told apart.
    if "." not in name and not _exists(name):
        near = closest(name, [module.name for module in pkgutil.iter_modules()])
        raise ConfigError(
            f"{setting} is {path!r}, but there is no module {name!r}; install it or run from its folder.{near}"
        )
    try:
        return importlib.import_module(name)
    except Exception as error:  # the module's own code runs here, and may raise anything
        raise ConfigError(
            f"{setting} is {path!r}, but importing {name!r} failed: {type(error).__name__}: {error}; "
            f"`python -c 'import {name}'` shows where."
        ) from error


def _exists(name: str) -> bool:
    try:
        return bool(name) and importlib.util.find_spec(name) is not None
    except ValueError:  # a module made by hand has no spec, but is there
        return True
