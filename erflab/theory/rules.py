"""The one table of the theory: ATen operation -> rule, with a column for each reading.

box: what each output sees, forward, on one side of one image axis (`erflab.theory.box_rules.call`).
support: which elements the marked outputs read, backward, exactly (`erflab.theory.support_rules.back`).
energy: how moments pass forward and the energy of gradients backward (`erflab.theory.energy_rules.meanfield`).

A missing column is None; a reading that needs it, or meets an operation without a row, raises UnknownOperationError, and
never takes an operation for the identity.
"""

from __future__ import annotations

from dataclasses import dataclass

import erflab.theory.energy_rules.mixing as energy_mixing
import erflab.theory.energy_rules.moves as energy_moves
import erflab.theory.energy_rules.norms as energy_norms
import erflab.theory.energy_rules.pointwise as energy_pointwise
import erflab.theory.energy_rules.reductions as energy_reductions
import erflab.theory.energy_rules.sampling as energy_sampling
import erflab.theory.energy_rules.windows as energy_windows
import erflab.theory.support_rules.indexing as support_indexing
import erflab.theory.support_rules.moves as support_moves
import erflab.theory.support_rules.reductions as support_reductions
import erflab.theory.support_rules.windows as support_windows
from erflab.errors import TheoryError
from erflab.theory.box_rules import indexing, moves, products, reductions, resampling, windows
from erflab.theory.box_rules.call import BoxRule, Call, SupportRule
from erflab.theory.box_rules.moves import pointwise
from erflab.theory.energy_rules.meanfield import EnergyRule
from erflab.theory.energy_rules.moves import placed
from erflab.theory.support_rules.moves import joined, renumbered, sliced
from erflab.theory.support_rules.windows import resampled
from erflab.theory.table import rows, table

__all__ = ["RULES", "Call", "Rule", "pointwise", "register_rule"]


@dataclass(frozen=True)
class Rule:
    """What is known of one operation, a column for each reading; None where it is not."""

    box: BoxRule
    support: SupportRule | None
    energy: EnergyRule | None


def _rows(
    names: str, box: BoxRule, support: SupportRule, energy: EnergyRule | None, *, inplace: bool = False
) -> dict[str, Rule]:
    return rows(Rule(box, support, energy), names, inplace=inplace)


# fmt: off
RULES: dict[str, Rule] = table(
    # one place of each operand
    _rows(
        "neg negative pow float_power abs sqrt rsqrt exp exp2 expm1 log log1p log2 log10 square reciprocal sin cos tan sinh "
        "cosh tanh asin acos atan asinh acosh atanh sinc erf erfc erfinv lgamma digamma relu relu6 hardtanh leaky_relu elu "
        "celu selu gelu silu mish sigmoid hardsigmoid hardswish softplus softshrink hardshrink threshold prelu "
        "_prelu_kernel clamp clamp_min clamp_max addcmul addcdiv lerp nan_to_num logit",
        pointwise, joined, energy_pointwise.FUNCTION, inplace=True,
    ),
    _rows("sub", pointwise, joined, energy_pointwise.DIFFERENCE, inplace=True),
    _rows("rsub", pointwise, joined, energy_pointwise.REVERSED),
    _rows("mul", pointwise, joined, energy_pointwise.PRODUCT, inplace=True),
    _rows("div", pointwise, joined, energy_pointwise.QUOTIENT, inplace=True),
    _rows("maximum minimum fmax fmin", pointwise, joined, energy_pointwise.LARGER, inplace=True),
    _rows(
        "atan2 xlogy hypot log_sigmoid_forward rrelu fmod remainder floor_divide floor ceil round trunc frac sign sgn signbit "
        "heaviside isnan isinf eq ne lt le gt ge logical_not logical_and logical_or logical_xor bitwise_not bitwise_and "
        "bitwise_or bitwise_xor polar complex angle _conj _conj_physical real imag copysign native_dropout bernoulli",
        pointwise, joined, None, inplace=True,
    ),
    _rows(
        "clone _to_copy contiguous lift_fresh lift_fresh_copy detach alias dropout positive",
        moves.same, joined, energy_pointwise.IDENTITY,
    ),
    _rows("_neg_view resolve_conj", moves.same, joined, None),
    _rows("add", moves.add, support_moves.added, energy_pointwise.SUM, inplace=True),
    _rows("masked_fill", moves.masked_fill, support_moves.mask_filled, placed(1), inplace=True),
    _rows("where", moves.where, support_moves.chosen, placed(0)),
    _rows("tril triu", moves.triangle, support_moves.triangular, energy_moves.MOVED, inplace=True),
    _rows("copy", moves.overwrite, support_moves.overwritten, energy_moves.OVERWRITTEN, inplace=True),
    _rows("fill zero", moves.overwrite, support_moves.overwritten, None, inplace=True),
    _rows("glu", moves.gated_halves, support_moves.gated_halves, None),
    # moves
    _rows("permute", moves.replay, support_moves.permuted, energy_moves.MOVED),
    _rows("transpose t", moves.replay, support_moves.swapped, energy_moves.MOVED, inplace=True),
    _rows("swapaxes", moves.replay, support_moves.swapped, energy_moves.MOVED),
    _rows("unsqueeze squeeze", moves.replay, support_moves.reshaped, energy_moves.MOVED, inplace=True),
    _rows("select slice unbind narrow", moves.replay, sliced(1), energy_moves.MOVED),
    _rows(
        "split split_with_sizes chunk unsafe_split unsafe_split_with_sizes unsafe_chunk",
        moves.replay, sliced(2), energy_moves.MOVED,
    ),
    _rows("expand", moves.replay, support_moves.broadcast, energy_moves.MOVED),
    _rows("diagonal unfold movedim", moves.replay, renumbered(), energy_moves.MOVED),
    _rows(
        "view _unsafe_view reshape _reshape_alias flatten unflatten",
        moves.reshape, support_moves.reshaped, energy_moves.MOVED,
    ),
    _rows("as_strided", moves.as_strided, support_moves.restrided, None, inplace=True),
    _rows("cat concatenate", moves.concatenate, support_moves.concatenated, energy_moves.CONCATENATED),
    _rows("stack", moves.stack, support_moves.stacked, placed()),
    _rows("roll", moves.roll, support_moves.rolled, energy_moves.MOVED),
    _rows("flip", moves.flip, support_moves.flipped, energy_moves.MOVED),
    _rows("repeat tile", moves.repeat, renumbered(), energy_moves.MOVED),
    _rows("pixel_shuffle", moves.pixel_shuffle, renumbered(1), energy_moves.MOVED),
    _rows("pixel_unshuffle", moves.pixel_unshuffle, renumbered(1), energy_moves.MOVED),
    _rows("channel_shuffle native_channel_shuffle", moves.channel_shuffle, renumbered(1), energy_moves.MOVED),
    _rows("view_as_real", moves.as_pairs, support_moves.as_pairs, None),
    _rows("view_as_complex", moves.from_pairs, support_moves.from_pairs, None),
    # indexing
    _rows("index _unsafe_index", indexing.index, support_indexing.indexed, placed(1)),
    _rows("index_select", indexing.index_select, support_indexing.indexed, placed(2)),
    _rows("embedding", indexing.embedding, support_indexing.embedded, None),
    _rows("gather", indexing.gather, support_indexing.gathered, placed(2)),
    _rows("index_put _unsafe_index_put _index_put_impl", indexing.put, support_indexing.put, placed(1), inplace=True),
    _rows("slice_scatter", indexing.slice_scatter, renumbered(), placed()),
    _rows("select_scatter", indexing.select_scatter, renumbered(), placed()),
    _rows("index_copy", indexing.index_copy, support_indexing.slices_copied, placed(2), inplace=True),
    _rows("index_add", indexing.index_add, support_indexing.slices_added, placed(2), inplace=True),
    _rows("scatter scatter_add", indexing.scatter, support_indexing.scattered, placed(2), inplace=True),
    _rows("scatter_reduce", indexing.scatter, support_indexing.scattered, None, inplace=True),
    _rows("sort argsort topk median nanmedian mode kthvalue", indexing.ordered, support_indexing.ordered, None),
    _rows("affine_grid_generator", indexing.affine_grid, support_indexing.affine_grid, None),
    _rows(
        "grid_sampler_2d grid_sampler_3d",
        indexing.grid_sampled, support_indexing.grid_sampled, energy_sampling.SAMPLED,
    ),
    dict.fromkeys(
        ("torchvision.deform_conv2d", "torchvision.roi_align", "torchvision.roi_pool", "torchvision.ps_roi_align"),
        Rule(indexing.sampled, support_indexing.anywhere, None),
    ),
    # padding and windows
    _rows("constant_pad_nd", windows.pad_constant, support_moves.padded, energy_moves.PADDED),
    _rows(
        "reflection_pad1d reflection_pad2d reflection_pad3d", windows.pad_reflect, renumbered(2), energy_moves.MOVED
        ,
    ),
    _rows(
        "replication_pad1d replication_pad2d replication_pad3d",
        windows.pad_replicate, renumbered(2), energy_moves.MOVED,
    ),
    _rows("convolution", windows.convolution, support_windows.convolution, energy_windows.CONVOLUTION),
    _rows(
        "max_pool2d_with_indices max_pool3d_with_indices", windows.pool, support_windows.pooled, energy_windows.MAX_POOL
        ,
    ),
    _rows("max_pool1d max_pool2d max_pool3d", windows.pool, support_windows.pooled, None),
    _rows("avg_pool1d avg_pool2d avg_pool3d", windows.pool, support_windows.pooled, energy_windows.AVERAGE_POOL),
    _rows(
        "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d",
        windows.adaptive_pool, support_windows.binned, energy_windows.RESAMPLED,
    ),
    _rows(
        "adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d",
        windows.adaptive_pool, support_windows.binned, None,
    ),
    _rows("im2col", windows.unfold, support_windows.unfolded, energy_moves.MOVED),
    _rows("col2im", windows.fold, support_windows.folded, energy_moves.MOVED),
    # reductions
    _rows("mean sum", reductions.reduction, support_reductions.reduced, energy_reductions.MEAN),
    _rows(
        "var std var_mean std_mean", reductions.reduction, support_reductions.reduced, energy_reductions.VARIANCE
    ),
    _rows("amax amin", reductions.reduction, support_reductions.reduced, energy_reductions.EXTREME),
    _rows(
        "nansum aminmax prod logsumexp argmax argmin any all count_nonzero",
        reductions.reduction, support_reductions.reduced, None,
    ),
    _rows("max min", reductions.extreme, support_reductions.extreme, energy_reductions.EXTREME),
    _rows("norm linalg_vector_norm", reductions.norm, support_reductions.normed, energy_reductions.NORM),
    _rows("_softmax _safe_softmax", reductions.softmax, support_reductions.softmaxed, energy_mixing.SOFTMAX),
    _rows("_log_softmax", reductions.softmax, support_reductions.softmaxed, None),
    _rows(
        "cumsum cumprod cummax cummin _cummax_helper logcumsumexp",
        reductions.cumulative, support_reductions.cumulated, None, inplace=True,
    ),
    _rows("_fft_r2c _fft_c2r _fft_c2c", reductions.fourier, support_reductions.transformed, None),
    _rows("lstm gru rnn_tanh rnn_relu", reductions.recurrence, support_reductions.recurrent, None),
    _rows("native_batch_norm", reductions.batch_norm, support_reductions.batch_normed, energy_norms.BATCH_NORM),
    _rows(
        "_native_batch_norm_legit _native_batch_norm_legit_functional",
        reductions.batch_norm, support_reductions.batch_normed, None,
    ),
    _rows(
        "_native_batch_norm_legit_no_training",
        reductions.batch_norm_no_training, support_reductions.batch_normed_eval, energy_norms.BATCH_NORM,
    ),
    _rows("_batch_norm_no_update", reductions.batch_norm_no_training, support_reductions.batch_normed_eval, None),
    _rows("native_layer_norm", reductions.layer_norm, support_reductions.layer_normed, energy_norms.LAYER_NORM),
    _rows("_fused_rms_norm rms_norm", reductions.layer_norm, support_reductions.layer_normed, None),
    _rows("native_group_norm", reductions.group_norm, support_reductions.group_normed, energy_norms.GROUP_NORM),
    # products
    _rows("mm bmm", products.product, support_reductions.multiplied, energy_mixing.MATMUL),
    _rows("mv dot vdot", products.product, support_reductions.multiplied, None),
    _rows("linear", products.linear, support_reductions.projected, None),
    _rows("addmm baddbmm", products.sum_with_product, support_reductions.added_product, energy_mixing.MATMUL),
    _rows("addmm_ baddbmm_ addmv addmv_", products.sum_with_product, support_reductions.added_product, None),
    _rows("addbmm", products.sum_with_product, support_reductions.batch_added_product, None, inplace=True),
    _rows("_cdist_forward _euclidean_dist", products.distances, support_reductions.distanced, None),
    # resampling
    _rows(
        "upsample_nearest1d upsample_nearest2d upsample_nearest3d",
        resampling.nearest, resampled(), energy_windows.RESAMPLED,
    ),
    _rows(
        "_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d",
        resampling.nearest_exact, resampled(), energy_windows.RESAMPLED,
    ),
    _rows(
        "upsample_linear1d upsample_bilinear2d upsample_trilinear3d",
        resampling.linear, resampled(1), energy_windows.RESAMPLED,
    ),
    _rows("upsample_bicubic2d", resampling.cubic, resampled(1), energy_windows.RESAMPLED),
    _rows("_upsample_bilinear2d_aa", resampling.linear_antialiased, resampled(1), energy_windows.RESAMPLED),
    _rows("_upsample_bicubic2d_aa", resampling.cubic_antialiased, resampled(1), energy_windows.RESAMPLED),
)
# fmt: on


def register_rule(
    op: str,
    *,
    box: BoxRule,
    support: SupportRule | None = None,
    energy: EnergyRule | None = None,
    replace: bool = False,
) -> None:
    """Teach the theory an operation: what each element of its output reads, and how gradients pass it.

    Args:
        op: the operation's name as the error gives it, "namespace.name", without the overload.
        box: the rule. It is called with a `Call` and the arguments of the operation, in which tensors that depend on the
            input are `Value`s (with a `shape`) and others are tensors, and returns one tensor per output (a single tensor,
            or a list). The call is seen from one side of one image axis: `call.edge(value)` is, for every element of an
            operand, the first pixel it can see (or minus the last one), +inf where it sees nothing, -inf if unbounded. Both
            sides follow one rule: *the result is the minimum over what the output element reads*. Dimensions on which the
            result is constant may have length 1, and `call.shape` is the shape of the first output. Ready-made rules stand
            in `erflab.theory.rules` (`pointwise`: each output reads all operands at its own place), the minima over windows,
            whole dimensions and listed positions in `erflab.theory.box`.
        support: the rule of the exact sets, which `field.support()` needs. It is called with a `Back` and the arguments of
            the operation; `back.mark` says, for every element of the output, whether it matters (bool, of its shape). It
            yields pairs: an operand, and which of its elements those read (bool, of the operand's shape). It may be left out
            with `pointwise`, whose sets are known.
        energy: the rule of the mean field, which `predicted_field` needs: an `EnergyRule` of
            `erflab.theory.energy_rules.meanfield`. Ready-made ones stand in the modules beside it (`pointwise.FUNCTION`: an
            elementwise function).
        replace: whether a rule that the table already has is replaced.

    Raises:
        TheoryError: the name has no namespace, or the table has a rule for it and `replace` is not set.

    Example: an operation that adds to every row of an image [B, C, H, W] the row above it (the first has none).

        >>> import torch
        >>> import erflab
        >>> @torch.library.custom_op("erflab_doc::add_row_above", mutates_args=())
        ... def add_row_above(x: torch.Tensor) -> torch.Tensor:
        ...     return x + torch.nn.functional.pad(x, (0, 0, 1, 0))[..., :-1, :]
        >>> @add_row_above.register_fake  # shapes, which the trace needs
        ... def _(x):
        ...     return torch.empty_like(x)
        >>> from erflab.theory import box
        >>> def reads(call, x):  # row i reads rows i - 1 and i: a window of two along dimension 2
        ...     return box.window(call.edge(x), 2, kernel=2, stride=1, padding=1, dilation=1, out=x.shape[2])
        >>> erflab.register_rule("erflab_doc.add_row_above", box=reads)
        >>> class Net(torch.nn.Module):
        ...     def forward(self, x):
        ...         return add_row_above(x)
        >>> field = erflab.theoretical_field(Net(), input_size=(32, 32))
        >>> field.size, field.padding
        ((2, 1), (1, 0))
    """
    if "." not in op:
        raise TheoryError(f"operation {op!r} has no namespace; give it as 'namespace.name', such as 'mylib.{op}'.")
    if op in RULES and not replace:
        raise TheoryError(f"operation {op!r} already has a rule; pass replace=True to replace it.")
    RULES[op] = Rule(box, joined if support is None and box is pointwise else support, energy)
