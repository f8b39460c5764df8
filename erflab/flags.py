"""What may make a number misleading: each flag once, with what to do about it."""

from __future__ import annotations

from dataclasses import dataclass

FLAGS = {
    "trf_clipped": "the image border cuts the unit's theoretical field; enlarge images.size or choose unit=center",
    "trf_global": "the theoretical field is the whole image; sizes are relative to this input size",
    "trf_unknown": "no unclipped theoretical field is known; center_rule says what offsets are measured from",
    "erf_clipped": "the effective field reaches the image border, which cuts it; enlarge images.size",
    "zero_branches": "weights are all zero, so that whole branches are off and the field is that of the others; "
    "use trained weights, or re-draw these",
    "batch_statistics": "batch-norm layers without running statistics mix the images of a batch; set track_running_stats",
    "channel_sum": "the sum over channels vanishes behind a normalisation over channels, so this map is made of rounding "
    "errors; use attribution.gradient.magnitude=energy",
    "dead_images": "the unit is dead on part of the images: the map is that of the others; choose another unit",
    "underflow": "the map is close to the smallest number that there is; use runtime.precision=float64",
    "low_precision": "runtime.precision moves sigma by more than 0.1 % on the first batch; use fp32",
    "precision_fallback": "bf16 moves sigma by more than 0.1 % on the first batch, so auto measured in fp32; "
    "the numbers stand",
    "not_compiled": "runtime.compile was asked for, but the model was run as it is; the numbers stand",
    "auto_size_fallback": "images.size=auto found no size that holds the whole field; images.fallback_size was taken",
    "crop_differs": "computed on a part of the first image, the map is another one than on the whole; whole images were "
    "computed, so the result stands; report the model, or set runtime.crop=off",
    "untracked": "dependence on the input was lost (.item(), numpy); the theoretical field may be too small",
    "occlusion_clipped": "most occlusion readings come from units whose field the border cuts; use "
    "attribution.occlusion.units=unclipped",
    "occlusion_rounding": "occluding moves the outputs by hardly more than rounding does, so this map may be made of that; use "
    "runtime.precision=float64, and see whether biases or normalisations drown the input",
    "tolerance_not_reached": "the images ran out before runtime.tolerance was reached; raise images.count",
    "stopped": "measured until SE(sigma) / sigma fell below runtime.tolerance; the interval is one after stopping",
    "large_floor": "much of the sum is a constant floor, so large radii, areas and squares are the floor's; quote those named "
    "_above_floor",
    "few_groups": "few independent scenes, so intervals are wide, or none for a single one; measure at least 8 scenes",
    "few_effective_images": "few images carry the sum (N_eff under 100), so intervals are optimistic; measure more images",
    "dominant_image": "one image carries much of the sum; compare equal_weight_sigma, and measure more images",
    "scale_dependent": "replknet_area_ratio depends on the scale of the map; compare it only with tables of that protocol",
    "no_size": "the map is zero (a dead unit) or has negative values (signed), so it has no size; choose another unit "
    "or magnitude",
    "fit": "the falloff fit is not to be trusted as it stands; do what each part's own flag says",
}
"""Code -> what it means and what to do."""


@dataclass(frozen=True)
class Flag:
    """One flag raised for one method, or for the whole measurement (method None), with the value seen."""

    code: str
    method: str | None = None
    seen: str = ""

    def __post_init__(self) -> None:
        """Refuse codes that are not listed."""
        if self.code not in FLAGS:
            raise ValueError(f"flag {self.code!r} is not listed in FLAGS")

    @property
    def without_seen(self) -> Flag:
        """The flag alone, to find those that several parts of a result share."""
        return Flag(self.code, self.method)

    def __str__(self) -> str:
        subject = f"{self.method}: " if self.method else ""
        return f"{subject}{FLAGS[self.code]}{f' (seen: {self.seen})' if self.seen else ''}"
