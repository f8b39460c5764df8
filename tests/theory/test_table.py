"""The table: no operation has two rows, and index_copy at input-dependent places reads what may have been placed there."""

import pytest
from torch import Tensor, nn

import erflab
from erflab.theory.table import rows, table


def test_an_operation_with_two_rows_is_refused() -> None:
    assert table(rows(1, "add mul", inplace=True), rows(2, "cat")) == {
        "aten.add": 1,
        "aten.add_": 1,
        "aten.mul": 1,
        "aten.mul_": 1,
        "aten.cat": 2,
    }
    with pytest.raises(ValueError, match=r"operations \['aten.add'\] have two rows in the table; keep one"):
        table(rows(1, "add mul"), rows(2, "cat add"))


def test_slices_copied_to_places_that_the_input_tells_may_lie_anywhere() -> None:
    class Placed(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            places = (x.sum((0, 1, 2)) > 0).long().cumsum(0)[:2]
            return x.index_copy(3, places, x[..., :2])

    support = erflab.theoretical_field(Placed(), input_size=(8, 8)).support((3, 5))
    assert support.count == 64
