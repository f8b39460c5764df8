"""The configuration: every file composes and instantiates, every option is documented, mistakes are refused."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from erflab import config as schema
from erflab.analysis import LINE_SHAPES
from erflab.compose import SCHEMAS, config_directory, option_names, options, register, to_config
from erflab.config import ErflabConfig
from erflab.errors import ConfigError
from erflab.explanation import explain
from erflab.identity import fingerprint, identity
from erflab.plots import KINDS

GROUPS = ("model", "images", "target", "attribution", "falloff", "runtime", "tracking")
# What an option needs beside its name: paths and classes that have no default.
NEEDS = {
    "images/folder": ["images.path=photos"],
    "images/dataset": ["images._target_=torchvision.datasets.FakeData"],
    "model/custom": ["model._target_=torchvision.models.resnet18"],
}


def composed(*overrides: str) -> ErflabConfig:
    register()
    with initialize_config_dir(str(config_directory()), version_base="1.3"):
        return to_config(compose("config", list(overrides), return_hydra_config=False))


def files() -> list[str]:
    found = config_directory().glob("*/*.yaml")
    return sorted(f"{f.parent.name}/{f.stem}" for f in found if f.parent.name in GROUPS)


@pytest.mark.parametrize("file", files())
def test_every_group_file_composes_and_instantiates(file: str) -> None:
    group, name = file.split("/")
    found = composed(f"{group}={name}", *NEEDS.get(file, []))
    assert isinstance(found, ErflabConfig)


@pytest.mark.parametrize("file", sorted((config_directory() / "experiment").glob("*.yaml")), ids=lambda f: f.stem)
def test_every_experiment_composes_and_has_its_script(file: Path) -> None:
    found = composed(f"+experiment={file.stem}")
    assert found != composed()
    scripts = [s for s in (config_directory().parent / "experiments").glob("*.py") if "__main__" in s.read_text()]
    assert any(file.stem == script.stem or file.stem.startswith(f"{script.stem}_") for script in scripts)


def test_the_defaults_are_the_main_job() -> None:
    found = composed()
    assert (found.model.name, found.model.layer, found.model.weights) == (
        "tf_efficientnet_lite0",
        "blocks.4",
        "efficientnet_lite0",
    )
    assert isinstance(found.images, schema.PhotographsConfig)
    assert (found.images.count, found.images.size) == (64, "auto")
    assert found.attribution.gradient is not None
    assert found.attribution.occlusion is not None


@pytest.mark.parametrize("name", ["resnet50", "vit_base_patch16_224.augreg_in1k", "convnext_tiny"])
def test_any_library_name_is_an_option_of_model(name: str) -> None:
    assert composed(f"model={name}").model.name == name


def test_one_seed_reaches_every_group() -> None:
    found = composed("seed=7", "model=resnet18")
    assert (found.model.seed, found.images.seed, found.runtime.seed) == (7, 7, 7)
    found = composed("seed=7", "images.seed=3")
    assert (found.model.seed, found.images.seed) == (7, 3)


def test_methods_are_chosen_by_list() -> None:
    found = composed("attribution=occlusion", "attribution.occlusion.patch=5").attribution
    assert found.gradient is None
    assert found.occlusion is not None
    assert found.occlusion.patch == 5


def test_every_option_is_documented() -> None:
    rows = list(options())
    assert all(len(text.split("(default")[0].strip()) > 8 for _, _, text in rows)
    assert all("help" in f.metadata for _, _, node in SCHEMAS for f in dataclasses.fields(node))
    assert "attribution.occlusion.patch" in option_names()


def refusal(*overrides: str) -> str:
    try:
        composed(*overrides)
    except ConfigError as error:
        return str(error)
    except (HydraException, OmegaConfBaseException) as error:
        cause = error.__cause__ or error.__context__
        return str(cause) if isinstance(cause, ConfigError) else explain(str(error), overrides)
    raise AssertionError(f"{overrides} was accepted")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["target.layr=x"], "target.layr.*Did you mean 'target.layer'"),
        (["+runtime.devise=cpu"], "no option 'runtime.devise'. Did you mean 'runtime.device'"),
        (["images.cuont=3"], "Did you mean 'images.count'"),
        (["attribution=gradiant"], "attribution has no option 'gradiant'; choose from .*Did you mean 'gradient'"),
        (["images=noise", "images.fit=crop"], "images.fit"),
        (["images.count=many"], "images.count|count.*many"),
        (["images.count=0"], "images.count is 0; give a number of at least 1"),
        (["images.size=-5"], "images.size is -5; give a number of at least 1 or 'auto'"),
        (["images.size=[224]"], r"images.size is .*224.*two integers"),
        (["images.fit=cropp"], "images.fit is 'cropp'.*Did you mean 'crop'"),
        (["target.unit=centre"], "target.unit is 'centre'.*Did you mean 'center'"),
        (["target.channel=-1"], "target.channel is -1; give a number of at least 0 or 'all'"),
        (["attribution.gradient.magnitude=power"], "attribution.gradient.magnitude is 'power'; choose one of energy"),
        (["attribution.occlusion.units=some"], "attribution.occlusion.units is 'some'"),
        (["attribution=deeplift", "attribution.deeplift.baseline=black"], "attribution.deeplift.baseline is 'black'"),
        (["attribution=deeplift", "attribution.deeplift.blur=0"], "attribution.deeplift.blur is 0"),
        (
            ["attribution=guided_backprop", "attribution.guided_backprop.magnitude=replknet"],
            "is 'replknet'; choose one of",
        ),
        (["attribution=integrated_gradients", "attribution.integrated_gradients.steps=0"], "gradients.steps is 0"),
        (["attribution=integrated_gradients", "attribution.integrated_gradients.tolerance=-1"], "tolerance is -1"),
        (["attribution=input_x_gradient", "attribution.input_x_gradient.draws=0"], "input_x_gradient.draws is 0"),
        (["runtime.dtype=float16"], "runtime.dtype is 'float16'.*float32"),
        (["runtime.threads=0"], "runtime.threads is 0"),
        (["runtime.figures=[erf,radical]"], "runtime.figures is 'radical'; choose one of erf, .*Did you mean 'radial'"),
        (["runtime.figures=radial"], r"runtime.figures is 'radial'; give true, false or a list such as \[erf,radial\]"),
        (["tracking=mlflow", "tracking.experiment=' '"], "tracking.experiment is ' '; give a name"),
        (["tracking=tensorbord"], "tracking has no option 'tensorbord'.*Did you mean 'tensorboard'"),
        (["runtime.checkpoint=-1"], "runtime.checkpoint is -1.0; give seconds of at least 0, or null"),
        (["runtime.checkpoint=inf"], "runtime.checkpoint is inf"),
        (["images=folder"], "images.path is missing"),
        (["images=dataset"], "images._target_ is missing"),
        (["model=custom"], "give exactly one of them"),
        (["model.std=[1.0,0.0,1.0]"], "every standard deviation must be positive"),
        (["falloff.families=[gaussian,mofat]"], "falloff.families is 'mofat'.*Did you mean 'moffat'"),
        (["falloff.families=[]"], "falloff.families is empty; give some of gaussian, exponential"),
        (["falloff.family=gausian"], "falloff.family is 'gausian'.*Did you mean 'gaussian'"),
    ],
)
def test_mistakes_are_refused_in_words(overrides: list[str], message: str) -> None:
    found = refusal(*overrides)
    assert re.search(message, found), found
    assert "\n" not in found


def test_the_families_are_those_of_the_analysis() -> None:
    assert tuple(LINE_SHAPES) == schema.FAMILIES
    assert {f.stem for f in (config_directory() / "falloff").glob("*.yaml")} == {*schema.FAMILIES, "auto"}


def test_the_figures_are_those_of_one_result() -> None:
    assert tuple(kind for kind, row in KINDS.items() if row.least == 1) == schema.FIGURES


@pytest.mark.parametrize(
    "override",
    [
        "tracking=mlflow",
        "runtime.figures=[erf]",
        "runtime.checkpoint=null",
        "runtime.recompute=true",
        "runtime.strict=true",
    ],
)
def test_what_changes_no_number_is_no_part_of_what_a_run_measures(override: str) -> None:
    plain, other = composed(), composed(override)
    assert plain != other
    assert identity(plain) == identity(other)
    assert fingerprint(schema.as_dict(plain)) == fingerprint(schema.as_dict(other))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, check=False)


def test_help_shows_groups_and_examples_and_does_not_import_torch() -> None:
    """Which is what lets it answer in well under two seconds."""
    script = "import sys; sys.argv = ['erflab', '--help']\ntry:\n    from erflab.cli import main; main()\n"
    script += "finally:\n    assert not {'torch', 'captum', 'matplotlib', 'xarray', 'timm'} & set(sys.modules)"
    done = run("-c", script)
    assert done.returncode == 0, done.stderr
    for word in (*GROUPS, "experiment", "photographs", "erflab model=resnet50"):
        assert word in done.stdout
    assert "schema" not in done.stdout


def test_options_lists_every_option_with_its_meaning() -> None:
    done = run("-m", "erflab", "options")
    assert done.returncode == 0
    assert all(name in done.stdout for _, name, _ in options())
    done = run("-m", "erflab", "options", "imagse")
    assert done.returncode == 1
    assert "no group 'imagse'" in done.stderr
    assert "Did you mean 'images'" in done.stderr


def test_an_extra_that_is_not_installed_is_named() -> None:
    told = "Could not find 'hydra/launcher/joblib'\n\nAvailable options in 'hydra/launcher':\n\tbasic\n\tslurm"
    assert explain(told, []) == (
        "hydra/launcher has no option 'joblib' (pip install 'erflab[joblib]' brings it); choose from basic, slurm."
    )
