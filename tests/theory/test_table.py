"""The table: no operation has two rows, and what it lacks is listed."""

import pytest
from torch import Tensor, nn

import erflab
from erflab.theory.rules import RULES
from erflab.theory.table import rows, table

# Operations through which no prediction goes (in-place forms aside): those without a useful derivative, complex numbers, and
# those that are rare in convolutional networks.
WITHOUT_ENERGY = set(
    (
        "_batch_norm_no_update _cdist_forward _conj _conj_physical _cummax_helper _euclidean_dist _fft_c2c _fft_c2r "
        "_fft_r2c _fused_rms_norm _log_softmax _native_batch_norm_legit _native_batch_norm_legit_functional _neg_view "
        "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d addbmm addmm addmv affine_grid_generator all "
        "aminmax angle any argmax argmin argsort as_strided atan2 baddbmm bernoulli bitwise_and bitwise_not bitwise_or "
        "bitwise_xor ceil complex copysign count_nonzero cummax cummin cumprod cumsum deform_conv2d dot embedding eq "
        "fill floor floor_divide fmod frac ge glu gru gt heaviside hypot imag isinf isnan kthvalue le linear "
        "log_sigmoid_forward logcumsumexp logical_and logical_not logical_or logical_xor logsumexp lstm lt max_pool1d "
        "max_pool2d max_pool3d median mode mv nanmedian nansum native_dropout ne polar prod ps_roi_align real remainder "
        "resolve_conj rms_norm rnn_relu rnn_tanh roi_align roi_pool round rrelu scatter_reduce sgn sign signbit sort "
        "topk trunc vdot view_as_complex view_as_real xlogy zero"
    ).split()
)


def test_every_operation_of_the_library_has_boxes_and_sets() -> None:
    assert all(rule.support for op, rule in RULES.items() if op.split(".")[0] in ("aten", "torchvision"))


def test_what_has_no_prediction_is_listed() -> None:
    lacking = {op.split(".")[1].rstrip("_") for op, rule in RULES.items() if rule.energy is None}
    assert lacking == WITHOUT_ENERGY


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
