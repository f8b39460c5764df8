"""Scripts of experiments/ import one another as they do when Python runs one of them."""

import os
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"


@pytest.fixture(autouse=True)
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The scripts import, and what they measure and write goes to an empty folder, which is returned."""
    monkeypatch.syspath_prepend(EXPERIMENTS)
    monkeypatch.setenv("PYTHONPATH", str(EXPERIMENTS.parent) + os.pathsep + os.environ.get("PYTHONPATH", ""))
    monkeypatch.chdir(tmp_path)
    return tmp_path
