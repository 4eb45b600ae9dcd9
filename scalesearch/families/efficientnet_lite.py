"""EfficientNet-Lite0 to Lite4: B0 without squeeze-excite, with ReLU6.

Stem and head keep their channels, and the first and the last stage their depth.
"""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from scalesearch.families.efficientnet import B0
from scalesearch.scaling import Family, Published, Rounding, tabled

LITE0 = replace(B0, stages=tuple(replace(stage, se_ratio=0.0) for stage in B0.stages), activation="relu6")
ROUNDING = Rounding(divisor=8, floor=0.9, stem="fixed", head="fixed", fixed_depths="ends")
# timm's lite3 and lite4 take 300 and 380 px instead
PUBLISHED = (
    Published(name="lite0", width=1.0, depth=1.0, resolution=224, dropout=0.2),
    Published(name="lite1", width=1.0, depth=1.1, resolution=240, dropout=0.2),
    Published(name="lite2", width=1.1, depth=1.2, resolution=260, dropout=0.3),
    Published(name="lite3", width=1.2, depth=1.4, resolution=280, dropout=0.3),
    Published(name="lite4", width=1.4, depth=1.8, resolution=300, dropout=0.3),
)

EFFICIENTNET_LITE = Family(
    name="efficientnet_lite",
    networks=tabled(LITE0, ROUNDING, PUBLISHED),
    rounding=ROUNDING,
    aliases=MappingProxyType({f"efficientnet_{row.name}": row.name for row in PUBLISHED}),
    published=PUBLISHED,
    source="arXiv:1905.11946; tensorflow/tpu, models/official/efficientnet/lite, efficientnet_lite_builder.py",
)
