"""erflab: a laboratory for receptive fields. How far can a network see, how far should it, and how far does it?

`theoretical_field` is exact, from the structure; `predicted_field` adds the weights; `measure` runs gradient and occlusion
attribution over images and sizes the effective field; `fit_falloff` fits any map; `load` reads a stored result and `collect`
many as one table.
"""

from __future__ import annotations

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from erflab.analysis.falloff import FalloffFit, fit_falloff
    from erflab.collection import collect
    from erflab.config import (
        DeepLiftConfig,
        GradientConfig,
        GuidedBackpropConfig,
        InputXGradientConfig,
        IntegratedGradientsConfig,
        OcclusionConfig,
        RuntimeConfig,
        TargetConfig,
    )
    from erflab.errors import ErflabError
    from erflab.measurement import measure
    from erflab.result import Result, load
    from erflab.theory.cost import layer_costs
    from erflab.theory.field import TheoreticalField
    from erflab.theory.layer import theoretical_field
    from erflab.theory.layers import theoretical_fields
    from erflab.theory.predicted import predicted_field
    from erflab.theory.rules import register_rule

# Public name -> module. Imported on first use: `import erflab` and `erflab --help` do not wait for torch.
_PUBLIC = {
    "DeepLiftConfig": "erflab.config",
    "ErflabError": "erflab.errors",
    "FalloffFit": "erflab.analysis.falloff",
    "GradientConfig": "erflab.config",
    "GuidedBackpropConfig": "erflab.config",
    "InputXGradientConfig": "erflab.config",
    "IntegratedGradientsConfig": "erflab.config",
    "OcclusionConfig": "erflab.config",
    "Result": "erflab.result",
    "RuntimeConfig": "erflab.config",
    "TargetConfig": "erflab.config",
    "TheoreticalField": "erflab.theory.field",
    "collect": "erflab.collection",
    "fit_falloff": "erflab.analysis.falloff",
    "layer_costs": "erflab.theory.cost",
    "load": "erflab.result",
    "measure": "erflab.measurement",
    "predicted_field": "erflab.theory.predicted",
    "register_rule": "erflab.theory.rules",
    "theoretical_field": "erflab.theory.layer",
    "theoretical_fields": "erflab.theory.layers",
}

__all__ = [
    "DeepLiftConfig",
    "ErflabError",
    "FalloffFit",
    "GradientConfig",
    "GuidedBackpropConfig",
    "InputXGradientConfig",
    "IntegratedGradientsConfig",
    "OcclusionConfig",
    "Result",
    "RuntimeConfig",
    "TargetConfig",
    "TheoreticalField",
    "collect",
    "fit_falloff",
    "layer_costs",
    "load",
    "measure",
    "predicted_field",
    "register_rule",
    "theoretical_field",
    "theoretical_fields",
]

try:
    __version__ = version("erflab")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "unknown"


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'erflab' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
