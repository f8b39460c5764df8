"""The one table of the theory: ATen operation -> rule, with a column for each reading.

A rule of the box column gets a `Call` (the node, and the edges of its operands on one side of one image axis) and the
node's own arguments, in which input-dependent tensors stand as `Value`s. It returns the core of the output's edge (one
element along constant dimensions), or a list of cores for several outputs. An operation that is not in the table is an
error, never an identity.
"""

from __future__ import annotations

from dataclasses import dataclass

from erflab.errors import TheoryError
from erflab.theory import indexing, moves, products, reductions, resampling, windows
from erflab.theory.call import BoxRule, Call, SupportRule
from erflab.theory.moves import pointwise
from erflab.theory.table import rows, table

__all__ = ["RULES", "Call", "Rule", "pointwise", "register_rule"]


@dataclass(frozen=True)
class Rule:
    """What is known of one operation; a user's own may come with a `support` rule (the others': `erflab.theory.support`)."""

    box: BoxRule
    support: SupportRule | None = None


def _rows(rule: BoxRule, names: str, *, inplace: bool = False) -> dict[str, Rule]:
    return rows(Rule(box=rule), names, inplace=inplace)


RULES: dict[str, Rule] = table(
    # one place of each operand
    _rows(
        pointwise,
        "sub mul div rsub neg negative pow float_power abs sqrt rsqrt exp exp2 expm1 log log1p log2 log10 square reciprocal "
        "sin cos tan sinh cosh tanh asin acos atan atan2 asinh acosh atanh sinc erf erfc erfinv lgamma digamma xlogy hypot "
        "relu relu6 hardtanh leaky_relu elu celu selu gelu silu mish sigmoid hardsigmoid hardswish softplus softshrink "
        "hardshrink threshold log_sigmoid_forward rrelu prelu _prelu_kernel clamp clamp_min clamp_max maximum minimum fmax "
        "fmin fmod remainder floor_divide floor ceil round trunc frac sign sgn signbit heaviside nan_to_num isnan isinf eq ne "
        "lt le gt ge logical_not logical_and logical_or logical_xor bitwise_not bitwise_and bitwise_or bitwise_xor "
        "addcmul addcdiv lerp polar complex angle _conj _conj_physical real imag logit copysign native_dropout bernoulli",
        inplace=True,
    ),
    _rows(
        moves.same,
        "clone _to_copy contiguous lift_fresh lift_fresh_copy detach alias dropout positive _neg_view resolve_conj",
    ),
    _rows(moves.add, "add", inplace=True),
    _rows(moves.masked_fill, "masked_fill", inplace=True),
    _rows(moves.where, "where"),
    _rows(moves.triangle, "tril triu", inplace=True),
    _rows(moves.overwrite, "copy copy_ fill fill_ zero zero_"),
    _rows(moves.gated_halves, "glu"),
    # moves
    _rows(
        moves.replay,
        "permute transpose t unsqueeze squeeze select slice expand split split_with_sizes chunk unbind narrow diagonal unfold "
        "transpose_ unsqueeze_ squeeze_ t_ movedim swapaxes unsafe_chunk unsafe_split unsafe_split_with_sizes",
    ),
    _rows(moves.reshape, "view _unsafe_view reshape _reshape_alias flatten unflatten"),
    _rows(moves.as_strided, "as_strided as_strided_"),
    _rows(moves.concatenate, "cat concatenate"),
    _rows(moves.stack, "stack"),
    _rows(moves.roll, "roll"),
    _rows(moves.flip, "flip"),
    _rows(moves.repeat, "repeat tile"),
    _rows(moves.pixel_shuffle, "pixel_shuffle"),
    _rows(moves.pixel_unshuffle, "pixel_unshuffle"),
    _rows(moves.channel_shuffle, "channel_shuffle native_channel_shuffle"),
    _rows(moves.as_pairs, "view_as_real"),
    _rows(moves.from_pairs, "view_as_complex"),
    # indexing
    _rows(indexing.index, "index _unsafe_index"),
    _rows(indexing.index_select, "index_select"),
    _rows(indexing.embedding, "embedding"),
    _rows(indexing.gather, "gather"),
    _rows(indexing.put, "index_put _unsafe_index_put _index_put_impl", inplace=True),
    _rows(indexing.slice_scatter, "slice_scatter"),
    _rows(indexing.select_scatter, "select_scatter"),
    _rows(indexing.index_copy, "index_copy", inplace=True),
    _rows(indexing.index_add, "index_add", inplace=True),
    _rows(indexing.scatter, "scatter scatter_add scatter_reduce", inplace=True),
    _rows(indexing.ordered, "sort argsort topk median nanmedian mode kthvalue"),
    _rows(indexing.sampled, "grid_sampler_2d grid_sampler_3d"),
    # padding and windows
    _rows(windows.pad_constant, "constant_pad_nd"),
    _rows(windows.pad_reflect, "reflection_pad1d reflection_pad2d reflection_pad3d"),
    _rows(windows.pad_replicate, "replication_pad1d replication_pad2d replication_pad3d"),
    _rows(windows.convolution, "convolution"),
    _rows(windows.pool, "max_pool1d max_pool2d max_pool3d max_pool2d_with_indices max_pool3d_with_indices"),
    _rows(windows.pool, "avg_pool1d avg_pool2d avg_pool3d"),
    _rows(
        windows.adaptive_pool,
        "_adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_avg_pool1d adaptive_max_pool1d adaptive_max_pool2d "
        "adaptive_max_pool3d",
    ),
    _rows(windows.unfold, "im2col"),
    _rows(windows.fold, "col2im"),
    # reductions
    _rows(
        reductions.reduction,
        "mean sum nansum amax amin aminmax var std prod var_mean std_mean logsumexp argmax argmin any all count_nonzero",
    ),
    _rows(reductions.extreme, "max min"),
    _rows(reductions.norm, "norm linalg_vector_norm"),
    _rows(reductions.softmax, "_softmax _log_softmax _safe_softmax"),
    _rows(reductions.cumulative, "cumsum cumprod cummax cummin _cummax_helper logcumsumexp", inplace=True),
    _rows(reductions.fourier, "_fft_r2c _fft_c2r _fft_c2c"),
    _rows(reductions.recurrence, "lstm gru rnn_tanh rnn_relu"),
    _rows(reductions.batch_norm, "native_batch_norm _native_batch_norm_legit _native_batch_norm_legit_functional"),
    _rows(reductions.batch_norm_no_training, "_native_batch_norm_legit_no_training _batch_norm_no_update"),
    _rows(reductions.layer_norm, "native_layer_norm _fused_rms_norm rms_norm"),
    _rows(reductions.group_norm, "native_group_norm"),
    # products
    _rows(products.product, "mm bmm mv dot vdot"),
    _rows(products.linear, "linear"),
    _rows(products.sum_with_product, "addmm baddbmm addmv addbmm", inplace=True),
    _rows(products.distances, "_cdist_forward _euclidean_dist"),
    # resampling
    _rows(resampling.nearest, "upsample_nearest1d upsample_nearest2d upsample_nearest3d"),
    _rows(resampling.nearest_exact, "_upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d"),
    _rows(resampling.linear, "upsample_linear1d upsample_bilinear2d upsample_trilinear3d"),
    _rows(resampling.cubic, "upsample_bicubic2d"),
    _rows(resampling.linear_antialiased, "_upsample_bilinear2d_aa"),
    _rows(resampling.cubic_antialiased, "_upsample_bicubic2d_aa"),
    dict.fromkeys(
        ("torchvision.deform_conv2d", "torchvision.roi_align", "torchvision.roi_pool", "torchvision.ps_roi_align"),
        Rule(box=indexing.sampled),
    ),
)


def register_rule(op: str, *, box: BoxRule, support: SupportRule | None = None, replace: bool = False) -> None:
    """Teach the theory an operation: what each element of its output reads.

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
            yields pairs: an operand, and which of its elements those read (bool, of the operand's shape).
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
    RULES[op] = Rule(box=box, support=support)
