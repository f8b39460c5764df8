"""The studies of structure: spelled networks, one study from end to end, and claims that fail where they should."""

import csv
from pathlib import Path

import pytest
import xarray as xr

from erflab.analysis.scaling import replicate_mean


def test_a_spelled_network_is_what_it_says():
    from spelled import Layer, network, parsed

    assert parsed("c3-c5d2-p2s2") == [Layer("c", 3), Layer("c", 5, dilation=2), Layer("p", 2, stride=2)]
    assert parsed("c1-c3g16+c1x2") == [Layer("c", 1), *[Layer("c", 3, groups=16), Layer("c", 1)] * 2]
    names = [type(module).__name__ for module in network("c3-p2s2-c3d2")]
    assert names == ["Conv2d", "MaxPool2d", "ReLU", "Conv2d"]
    wrapped = network("c3d2", padding="circular")[0]
    assert (wrapped.padding, wrapped.padding_mode) == ((2, 2), "circular")
    grouped = network("c1-c3g4-a2s2")
    assert (grouped[2].groups, grouped[3].kernel_size) == (4, 2)
    for wrong in ("c3-x2", "c3x", "c3-", "d3"):
        with pytest.raises(ValueError, match=f"layers is '{wrong}'; spell each as c3, c3s2, c3d2, c3g4, p2s2 or a2s2"):
            network(wrong)


def test_the_variance_that_a_layer_adds_is_that_of_its_taps_in_px():
    from spelled import expected_variance

    def of_taps(*places: float) -> float:
        return sum(place**2 for place in places) / len(places)

    assert expected_variance("c3x2-c1") == pytest.approx(2 * of_taps(-1, 0, 1))
    assert expected_variance("c3s2-p2s2-c3d3") == pytest.approx(
        of_taps(-1, 0, 1) + of_taps(-1, 1) + of_taps(-12, 0, 12)
    )


def test_the_recursion_from_end_to_end(scripts: Path):
    import recursion

    recursion.main()
    sweep = scripts / "multirun" / "recursion"
    rows = list(csv.DictReader((sweep / "table.csv").read_text().splitlines()))
    assert [(r["theory"], r["gradient"], r["first to last"]) for r in rows] == [
        ("6", "6", "10"),
        ("10", "10", "16"),
        ("27", "27", "19"),
    ]
    assert (sweep / "finding.md").read_text().count("- holds: ") == 4
    assert (sweep / "recursion.pdf").exists()


@pytest.mark.slow
def test_gridding_from_end_to_end(scripts: Path):
    import gridding

    gridding.main({"model.seed": "0,1,2"})
    assert "DOES NOT" not in (scripts / "multirun" / "gridding" / "finding.md").read_text()


@pytest.mark.slow
def test_padding_from_end_to_end(scripts: Path):
    import padding

    with pytest.raises(SystemExit, match="every other padding keeps"):  # two seeds give intervals of 12.7 errors
        padding.main({"model.seed": "0,1"})
    assert "- holds: no other padding reaches beyond the TRF" in (scripts / "multirun/padding/finding.md").read_text()


def even(value: float) -> object:
    return replicate_mean([value, value * 1.01, value * 0.99])


@pytest.mark.parametrize(("grown", "holds"), [(0.15, True), (0.03, False)])
def test_an_even_field_is_not_called_uneven(grown, holds):
    import gridding

    holes = {"(1, 1, 1)": 0, "(2, 2, 2)": 0.71, "(1, 2, 3)": 0, "(1, 2, 5)": 0, "(1, 2, 9)": 0.3}
    uneven = {"(2, 2, 2)": replicate_mean([1.0, 1.0]), "(1, 2, 3)": even(0.04), "(1, 2, 5)": even(grown)}
    rows = {name: {"holes": holes[name], "unevenness": uneven.get(name, even(0.1))} for name in holes}
    assert [claim.holds for claim in gridding.claims(rows)] == [True, True, True, True, holds]


@pytest.mark.parametrize(("zeros", "expected"), [(0.37, True), (0.99, False)])
def test_a_border_that_loses_nothing_is_noticed(zeros, expected):
    import padding

    energy = {("zeros", "edge"): zeros, ("zeros", "corner"): zeros / 3}
    far = {("circular", "edge"): 0.43, ("circular", "corner"): 0.65}
    keys = [(p, u) for p in ("valid", "zeros", "reflect", "circular") for u in padding.UNITS]
    rows = {k: {"energy": even(energy.get(k, 1.0)), "far share": even(far.get(k, 0.0))} for k in keys}
    rows["zeros", "center"]["energy"] = even(1.0)
    found = [claim.holds for claim in padding.claims(rows)]
    assert found == [expected, expected, expected, True, True, True]


def test_the_border_share_counts_the_outermost_pixels():
    import padding

    map = xr.DataArray([[1.0, 1, 1], [1, 8, 1], [1, 1, 1]], dims=("y", "x"))
    assert padding.border_share(map) == pytest.approx(0.5)
