"""The energy column: ATen operation -> what the mean field knows of it. An operation that is not here is an error."""

from __future__ import annotations

from erflab.theory import energy_mixing as mixing
from erflab.theory import energy_norms as norms
from erflab.theory import energy_pointwise as elements
from erflab.theory import energy_windows as windows
from erflab.theory.meanfield import EnergyRule
from erflab.theory.table import rows, table

VALUE_PATH = "attention: value path only, through the attention weights as they are"

_POINTWISE = EnergyRule(elements.expect_pointwise, elements.pull_pointwise, elements.observe_pointwise)
_IDENTITY = EnergyRule(elements.expect_identity, elements.pull_identity)
_MOVED = EnergyRule(elements.expect_moved, elements.pull_moved)
_MAX_POOL = EnergyRule(windows.expect_max_pool, windows.pull_max_pool, windows.observe_max_pool)
_BATCH_NORM = EnergyRule(norms.expect_batch_norm, norms.pull_batch_norm, norms.observe_batch_norm)


ENERGY: dict[str, EnergyRule] = table(
    rows(
        _POINTWISE,
        "relu relu_ relu6 hardtanh hardtanh_ leaky_relu leaky_relu_ elu elu_ gelu silu silu_ mish mish_ sigmoid sigmoid_ "
        "tanh tanh_ hardsigmoid hardsigmoid_ hardswish hardswish_ softplus threshold clamp clamp_ clamp_min clamp_min_ "
        "clamp_max clamp_max_ _prelu_kernel abs neg pow sqrt rsqrt exp log log1p square reciprocal sin cos erf masked_fill "
        "addcmul addcdiv lerp where",
    ),
    rows(_IDENTITY, "clone _to_copy contiguous lift_fresh_copy detach alias dropout"),
    rows(
        _MOVED,
        "permute transpose t unsqueeze squeeze select slice expand split split_with_sizes chunk unbind narrow transpose_ "
        "unsqueeze_ squeeze_ t_ view _unsafe_view reshape _reshape_alias flatten unflatten roll flip repeat "
        "pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle reflection_pad1d reflection_pad2d "
        "replication_pad2d index index_select",
    ),
    rows(EnergyRule(elements.expect_sum, elements.pull_sum), "add add_"),
    rows(EnergyRule(elements.expect_difference, elements.pull_sum), "sub sub_"),
    rows(EnergyRule(elements.expect_reversed, elements.pull_sum), "rsub"),
    rows(EnergyRule(elements.expect_product, elements.pull_product, elements.observe_product), "mul mul_"),
    rows(EnergyRule(elements.expect_quotient, elements.pull_product, elements.observe_quotient), "div div_"),
    rows(EnergyRule(elements.expect_concatenated, elements.pull_concatenated), "cat"),
    rows(EnergyRule(elements.expect_padded, elements.pull_moved), "constant_pad_nd"),
    rows(EnergyRule(elements.expect_overwritten, elements.pull_overwritten), "copy copy_"),
    rows(EnergyRule(windows.expect_convolution, windows.pull_convolution), "convolution"),
    rows(_MAX_POOL, "max_pool2d_with_indices max_pool3d_with_indices"),
    rows(EnergyRule(windows.expect_average_pool, windows.pull_average_pool), "avg_pool1d avg_pool2d avg_pool3d"),
    rows(
        EnergyRule(windows.expect_resampled, windows.pull_resampled),
        "_adaptive_avg_pool2d _adaptive_avg_pool3d upsample_nearest1d upsample_nearest2d upsample_nearest3d "
        "upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d",
    ),
    rows(_BATCH_NORM, "native_batch_norm _native_batch_norm_legit_no_training"),
    rows(EnergyRule(norms.expect_layer_norm, norms.pull_layer_norm, norms.observe_layer_norm), "native_layer_norm"),
    rows(EnergyRule(norms.expect_group_norm, norms.pull_group_norm, norms.observe_group_norm), "native_group_norm"),
    rows(EnergyRule(mixing.expect_matmul, mixing.pull_matmul, mixing.observe_matmul), "mm bmm addmm baddbmm"),
    rows(EnergyRule(mixing.expect_mean, mixing.pull_mean), "mean sum"),
    rows(EnergyRule(mixing.expect_norm, mixing.pull_norm, mixing.observe_norm), "linalg_vector_norm"),
    rows(
        EnergyRule(mixing.expect_softmax, mixing.pull_softmax, note=VALUE_PATH), "_softmax _log_softmax _safe_softmax"
    ),
)
