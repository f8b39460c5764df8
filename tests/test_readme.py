"""The README's code runs, and its commands compose."""

import re
import shlex
from pathlib import Path

import pytest
from test_config import composed

from erflab.cli import VERBS

README = (Path(__file__).parents[1] / "README.md").read_text()


def commands() -> list[str]:
    text = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL)).replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip().startswith("erflab ")]


def test_the_ten_lines_of_python_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    block, theory = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in block.splitlines() if line.strip()]) <= 10
    monkeypatch.chdir(tmp_path)
    exec(compile(block.replace("(64, 3, 224, 224)", "(2, 3, 128, 128)"), "README.md", "exec"), names := {})
    exec(compile(theory, "README.md", "exec"), names)
    assert {f.name for f in (tmp_path / "runs" / "mine").iterdir()} >= {
        "result.nc",
        "summary.json",
        "erf.pdf",
        "erf.png",
    }


@pytest.mark.parametrize("command", [c for c in commands() if c.split()[1] not in VERBS])
def test_the_commands_compose(command: str) -> None:
    words = [w for w in shlex.split(command, comments=True)[1:] if w != "-m"]
    sweeps = {"model=resnet18,resnet50": "model=resnet18", "target.layer=layer1,layer2": "target.layer=layer1"}
    # Which launchers there are depends on what is installed; tests/test_job.py runs joblib's.
    composed(*(sweeps.get(w, w) for w in words if not w.startswith(("hydra/launcher", "hydra.launcher"))))
