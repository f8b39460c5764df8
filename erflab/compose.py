"""The configuration as Hydra composes it: schemas of the groups, model names as options, and errors that help."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator
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
    found = _choices()
    found["model"].append("any torchvision or timm name")
    return "\n".join(f"{group:<12} {', '.join(names)}" for group, names in found.items())


def _choices() -> dict[str, list[str]]:
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


_EXTRAS = {"joblib": " (pip install 'erflab[joblib]' brings it)"}
"""Options that a package brings along with their configuration, so that without it there is nothing that could say so."""


def explain(message: str, overrides: Iterable[str]) -> str:
    """One line for an error of Hydra's or OmegaConf's: what it says first, and the closest valid names."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    first = lines[0] if lines else message
    missing = re.search(r"Could not (?:find|load) '([\w/]+)/([^'/]+)'", message)
    if missing and (choices := _choices().get(missing[1]) or _listed(lines)):
        install = _EXTRAS.get(missing[2], "")
        near = closest(missing[2], choices)
        return f"{missing[1]} has no option {missing[2]!r}{install}; choose from {', '.join(choices)}.{near}"
    details = [line for line in lines[1:] if not _is_noise(line)]
    names = option_names()
    seen = [key for key in map(_key, overrides) if key and key in message]
    wrong = [key for key in seen if key not in names and not _is_free(key)]
    hint = "".join(f" No option {k!r}.{closest(k, names)}" for k in wrong)
    if first.startswith("Could not override"):
        hint += "".join(map(_elsewhere, seen))
    return " ".join([first, *details[:3]]) + hint


def explain_unchosen(overrides: Iterable[str]) -> str:
    """One line for settings of a method that is not measured, on which Hydra fails without saying which."""
    given = dict(override.partition("=")[::2] for override in overrides)
    chosen = given.get("attribution", "gradient,occlusion")
    keys = [key for key in given if key.startswith("attribution.") and key.split(".")[1] not in chosen]
    return f"a setting of a method that is not chosen.{''.join(map(_elsewhere, keys))}"


def _elsewhere(key: str) -> str:
    """The sentence that says with which choice of its group an option is there; empty for no such option."""
    choices = [heading for heading, name, _ in options() if name == key and "=" in heading]
    return f" {key} is an option of {' and '.join(choices)}." if choices else ""


def _listed(lines: list[str]) -> list[str]:
    """The choices that a message of Hydra's lists."""
    heading = next((n for n, line in enumerate(lines) if line.startswith("Available options in")), len(lines))
    return [line for line in lines[heading + 1 :] if re.fullmatch(r"[\w.-]+", line)]


def _is_noise(line: str) -> bool:
    """Whether a line of a message says nothing to a user, or advises to add an option that will be refused."""
    return re.match(r"(full_key|object_type|reference_type|To append to your config|Key ')", line) is not None


def _key(override: str) -> str:
    return re.split(r"[=@]", override, maxsplit=1)[0].lstrip("+~")


def _is_free(key: str) -> bool:
    """Keys that no schema lists: Hydra's own, and those of dictionaries."""
    return key.startswith(("hydra", "experiment")) or ".arguments." in key
