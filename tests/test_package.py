"""The package: public names, and the wheel, built and run from another directory."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import erflab

ROOT = Path(__file__).parents[1]


def test_every_public_name_resolves() -> None:
    for name in erflab.__all__:
        assert getattr(erflab, name) is not None
    assert set(erflab.__all__) == set(erflab._PUBLIC)
    assert set(erflab.__all__) < set(dir(erflab))
    with pytest.raises(AttributeError, match="has no attribute 'measur'"):
        _ = erflab.measur


def test_no_module_bears_the_name_of_a_public_function() -> None:
    assert not {p.stem for p in (ROOT / "erflab").iterdir()} & set(erflab.__all__)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with the build backend that is installed already: no network is needed."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = out.glob("*.whl")
    return found


def test_the_wheel_holds_every_module_and_config_file(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(p.relative_to(ROOT)) for p in (ROOT / "erflab").rglob("*.py")} | {"hydra_plugins/erflab_launcher.py"}
    configs = {f"erflab/{p.relative_to(ROOT)}" for p in (ROOT / "conf").rglob("*.yaml")}
    assert modules | configs <= held


def test_the_wheel_measures_from_another_directory(wheel: Path, tmp_path: Path) -> None:
    site, work = tmp_path / "site", tmp_path / "work"
    work.mkdir()
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(install, check=True, timeout=300)
    script = (
        f"import sys; sys.path.insert(0, {str(site)!r}); import erflab; assert erflab.__file__.startswith({str(site)!r})\n"
        "sys.argv = ['erflab', 'model=resnet18', 'target.layer=layer1', 'images=noise', 'images.count=1', 'images.size=48',"
        " 'runtime.figures=false', 'runtime.device=cpu', 'hydra.run.dir=out']\n"
        "from erflab.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=work, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (work / "out" / "result.nc").exists()
