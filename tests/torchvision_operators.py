"""Make a CUDA build of torchvision importable beside a CPU build of torch.

Its compiled operators cannot be loaded then, and its import fails for want of two of them (also
that of transformers and timm, which import it). Nothing here calls them: declaring them is enough.
For tests and the gallery only; users install two builds that fit.
"""

import importlib.util
import sys

_declared = []  # the declarations live as long as this list


def make_torchvision_importable():
    """Import torchvision; declare its two missing operators where its own fail to load."""
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        import torchvision  # noqa: F401
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        import torch

        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _declared.append(library)
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        import torchvision  # noqa: F401
