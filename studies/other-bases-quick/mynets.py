"""A builder as a user writes it: timm's MobileNetV2, scaled by its own multipliers, which round depth up."""

from timm.models.efficientnet import _gen_mobilenet_v2
from torch import nn


def build(*, depth: float, width: float, resolution: int = 224) -> nn.Module:
    """The network for images of `resolution` [px]; its weights do not depend on it."""
    return _gen_mobilenet_v2("mobilenetv2_100", channel_multiplier=width, depth_multiplier=depth)
