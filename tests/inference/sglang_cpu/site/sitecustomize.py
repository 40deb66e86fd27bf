"""Before torchvision is imported, defines the two operators whose compiled part, a CUDA build, can't be loaded here.

torchvision's Python describes them to torch as it is imported; a text model calls neither.
"""

import importlib.abc
import sys


class _Operators(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, *_: object) -> None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            _Operators.library = torch.library.Library("torchvision", "DEF")  # kept: what it defines goes with it
            _Operators.library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _Operators.library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


sys.meta_path.insert(0, _Operators())
