"""No pixel with a non-zero float64 gradient lies outside the clipped box, in models of many kinds."""

from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from clipped import clipped_fields
from torch import nn

from erflab.theory.check import check_by_gradient

MODELS = {
    "resnet18": (torchvision.models.resnet18, 96),
    "mobilenet_v3_small": (torchvision.models.mobilenet_v3_small, 96),
    "shufflenet_v2_x0_5": (torchvision.models.shufflenet_v2_x0_5, 96),
    "squeezenet1_1": (torchvision.models.squeezenet1_1, 97),
    "regnet_y_400mf": (torchvision.models.regnet_y_400mf, 96),
    "swin_t": (torchvision.models.swin_t, 112),
    "test_vit": (lambda: timm.create_model("test_vit"), 160),
    "test_convnext": (lambda: timm.create_model("test_convnext"), 96),
    "test_efficientnet": (lambda: timm.create_model("test_efficientnet"), 95),
    "test_mambaout": (lambda: timm.create_model("test_mambaout"), 96),
    "test_nfnet": (lambda: timm.create_model("test_nfnet"), 96),
    "tf_mobilenetv3_small_minimal_100": (lambda: timm.create_model("tf_mobilenetv3_small_minimal_100"), 97),
    "inception_next_atto": (lambda: timm.create_model("inception_next_atto"), 96),
    "ghostnet_050": (lambda: timm.create_model("ghostnet_050"), 96),
}


@pytest.mark.parametrize("name", MODELS)
def test_gradients_stay_inside_the_boxes(name: str) -> None:
    build, side = MODELS[name]
    torch.manual_seed(0)
    model: nn.Module = build().eval()
    fields = clipped_fields(model, (side, side + 32 if side != 160 and name != "swin_t" else side))
    for field in fields[:: max(1, len(fields) // 2)]:
        units = [tuple(n // 2 for n in field.grid), tuple(0 for _ in field.grid), tuple(n - 1 for n in field.grid)]
        for check in check_by_gradient(model, field, units):
            assert check.outside == 0, check
