"""Tables for papers: numbers with their intervals, and names that LaTeX would trip over."""

import math

import pandas as pd
import pytest

from erflab.errors import ResultError
from erflab.tables import latex_table, quoted

TABLE = pd.DataFrame(
    [
        {"model": "vit_tiny", "sigma (px)": 12.345, "sigma_low (px)": 11.9, "sigma_high (px)": 12.81, "trf": math.inf},
        {"model": None, "sigma (px)": 0.01234, "sigma_low (px)": None, "sigma_high (px)": None, "trf": 211},
        {"model": "c", "sigma (px)": math.nan, "sigma_low (px)": None, "sigma_high (px)": None, "trf": 1451.0},
    ]
)
COLUMNS = {"model": "network", "sigma (px)": "sigma (px)", "trf": "TRF"}


def test_numbers_are_quoted_with_their_intervals():
    made = quoted(TABLE, COLUMNS)
    assert list(made) == ["network", "sigma (px)", "TRF"]
    assert made.to_numpy().tolist() == [
        ["vit_tiny", "12.3 [11.9, 12.8]", "global"],
        ["--", "0.0123", "211"],
        ["c", "--", "1451"],
    ]
    assert quoted(TABLE[:1], COLUMNS, digits=2)["sigma (px)"].tolist() == ["12 [12, 13]"]


def test_the_latex_table_has_rules_and_escaped_names():
    lines = latex_table(TABLE[:1], COLUMNS).splitlines()
    assert lines[:3] == [r"\begin{tabular}{lll}", r"\toprule", r"network & sigma (px) & TRF \\"]
    assert lines[4] == r"vit\_tiny & 12.3 [11.9, 12.8] & global \\"


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(ResultError, match=r"no column 'sigma' in the table\..*sigma \(px\)"):
        quoted(TABLE, {"sigma": "sigma"})
