"""The configuration as Hydra composes it: schemas of the groups, and model names as options."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf import DictConfig, OmegaConf

from erflab import config as schema
from erflab.errors import ConfigError, closest
from erflab.identity import fingerprint

# Schema nodes: name (stored as GROUP/NAME_schema), group, class.
SCHEMAS: tuple[tuple[str, str, type], ...] = (
    ("model", "model", schema.ModelConfig),
    ("photographs", "images", schema.PhotographsConfig),
    ("noise", "images", schema.NoiseConfig),
    ("folder", "images", schema.FolderConfig),
    ("dataset", "images", schema.DatasetConfig),
    ("target", "target", schema.TargetConfig),
    *((name, "attribution", node) for name, node in schema.METHODS.items()),
    ("falloff", "falloff", schema.FalloffConfig),
    ("runtime", "runtime", schema.RuntimeConfig),
    ("none", "tracking", schema.TrackingConfig),
    ("tensorboard", "tracking", schema.TensorBoardConfig),
    ("mlflow", "tracking", schema.MLflowConfig),
)


def config_directory() -> Path:
    """The configuration files: inside an installed package, or at the top of a source checkout."""
    installed = Path(__file__).with_name("conf")
    return installed if installed.is_dir() else Path(__file__).parents[1] / "conf"


def register() -> None:
    """Tell Hydra the schemas and the source of model names. May be called again."""
    store = ConfigStore.instance()
    store.store(name="erflab_schema", node=schema.ErflabConfig)
    for name, group, node in SCHEMAS:
        package = f"attribution.{name}" if group == "attribution" else group
        store.store(name=f"{name}_schema", group=group, node=node, package=package)
    Plugins.instance().register(LibraryModels)
    OmegaConf.register_new_resolver("erflab_groups", _groups, replace=True)
    OmegaConf.register_new_resolver("erflab_fingerprint", _fingerprint, replace=True)


def hydra_files(composed: DictConfig) -> dict[str, str]:
    """The files of `.hydra/`: the configuration, Hydra's own, and the overrides."""
    hydra = HydraConfig.get()
    files = {"config.yaml": composed, "hydra.yaml": {"hydra": hydra}, "overrides.yaml": hydra.overrides.task}
    return {name: OmegaConf.to_yaml(content) for name, content in files.items()}


def as_plain(composed: DictConfig) -> dict[str, Any]:
    """The composed configuration as nested dictionaries, interpolations resolved, unchecked."""
    return OmegaConf.to_container(composed, resolve=True)  # type: ignore[return-value]


def _fingerprint(*, _root_: DictConfig) -> str:
    """`${erflab_fingerprint:}`: the name of a run's directory that is the same for the same measurement only."""
    own = [str(key) for key in _root_ if key != "hydra"]
    return fingerprint(as_plain(OmegaConf.masked_copy(_root_, own)))


def _groups() -> str:
    """The groups and their options for `--help`."""
    found = choices()
    found["model"].append("any torchvision or timm name")
    return "\n".join(f"{group:<12} {', '.join(names)}" for group, names in found.items())


def choices() -> dict[str, list[str]]:
    """The options of each group: the files, without the schema nodes that Hydra's own list shows."""
    found: dict[str, list[str]] = {}
    for file in sorted(config_directory().glob("*/*.yaml")):
        found.setdefault(file.parent.name, []).append(file.stem)
    return found


class LibraryModels(ConfigSource):
    """Makes every name an option of the group `model`, for the libraries to look up: model=resnet50.

    Whether a library has it is found out when the model is built, which spares importing torch to compose a config.
    """

    @staticmethod
    def scheme() -> str:
        """models://"""
        return "models"

    def load_config(self, config_path: str) -> ConfigResult:
        """A configuration with the name filled in."""
        name = _library_name(config_path)
        node = OmegaConf.create({"defaults": ["model_schema", "_self_"], "name": name, "seed": "${seed}"})
        return ConfigResult(provider=self.provider, path=self.full_path(), config=node, header={"package": None})

    def available(self) -> bool:
        """Always."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Only `model`."""
        return config_path.rstrip("/") == "model"

    def is_config(self, config_path: str) -> bool:
        """Anything that may be a model's name."""
        return _library_name(config_path) is not None

    def list(self, config_path: str, results_filter: ObjectType | None) -> list[str]:
        """None: the libraries have thousands."""
        return []


def _library_name(config_path: str) -> str | None:
    found = re.fullmatch(r"model/([A-Za-z0-9][\w.\-]*?)(\.yaml)?", config_path)
    return found[1] if found and not found[1].endswith("_schema") else None


def to_config(composed: DictConfig) -> schema.ErflabConfig:
    """The composed configuration as checked dataclasses. Raises ConfigError, also for keys that `+` smuggled in."""
    config = OmegaConf.to_object(composed)
    assert isinstance(config, schema.ErflabConfig)
    for key in _unknown_keys(composed, config, ""):
        raise ConfigError(f"no option {key!r}.{closest(key, option_names())}")
    return config


def _unknown_keys(node: DictConfig, config: Any, prefix: str) -> Iterator[str]:
    fields = {f.name for f in dataclasses.fields(config)}
    for key in node:
        value = getattr(config, str(key), None)
        if key not in fields:
            yield f"{prefix}{key!s}"
        elif dataclasses.is_dataclass(value):
            yield from _unknown_keys(node[key], value, f"{prefix}{key}.")


def options() -> Iterator[tuple[str, str, str]]:
    """Every option: (GROUP=SOURCE or group, dotted name, default and help)."""
    for name, group, node in SCHEMAS:
        prefix = f"attribution.{name}" if group == "attribution" else group
        heading = f"{group}={name}" if group in ("images", "attribution", "tracking") else group
        for item in dataclasses.fields(node):
            factory = item.default_factory
            default = item.default if factory is dataclasses.MISSING else factory()
            yield heading, f"{prefix}.{item.name}", f"{item.metadata['help']} (default: {default})"


def option_names() -> list[str]:
    """The dotted names of all options, and the groups."""
    groups = sorted({group for _, group, _ in SCHEMAS})
    return list(dict.fromkeys([name for _, name, _ in options()] + groups + ["seed"]))
