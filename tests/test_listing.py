"""The verb `erflab theory`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from erflab import cli
from erflab.errors import ConfigError, ModelError
from erflab.listing import print_fields


def test_the_table_and_its_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [f"{tmp_path}/fields.csv", f"{tmp_path}/fields.json"]
    cli.VERBS["theory"](["model=resnet18", "--csv", files[0], "images.size=[128,96]", f"--json={files[1]}"])
    printed = capsys.readouterr().out
    assert "resnet18 at 128 x 96 px" in printed
    assert any("layer4" in line and " 435 " in line and " 217 " in line for line in printed.splitlines())
    assert "global" in printed
    records = json.loads(Path(files[1]).read_text(encoding="utf-8"))
    assert len(records) == len(Path(files[0]).read_text(encoding="utf-8").splitlines()) - 1 == 76


def test_only_some_layers(capsys: pytest.CaptureFixture[str]) -> None:
    print_fields(["model=resnet18", "images.size=64", "--layers", "^layer[12]$"])
    printed = capsys.readouterr().out
    assert "layer1" in printed
    assert "layer2" in printed
    assert "conv" not in printed


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (["model=resnet18", "--cvs", "x"], ConfigError, r"no option '--cvs'.*Usage: erflab theory"),
        (["model=resnet18", "--csv"], ConfigError, r"argument --csv: expected one argument\. Usage"),
        (["model=resnet18", "--layers", "("], ConfigError, r"--layers '\(' is no regular expression"),
        (["model=resnet1888"], ModelError, "resnet1888.*Did you mean 'resnet18'"),
    ],
)
def test_bad_input(arguments: list[str], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        print_fields(arguments)
