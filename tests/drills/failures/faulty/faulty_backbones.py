"""Backbones that can be built and cannot be trained, each for a reason of its own."""

import os
import signal
from typing import Any

import torch
from timm.models import register_model
from timm.models.resnet import ResNet, test_resnet


class Raising(ResNet):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            raise RuntimeError("this layer does not train")
        return super().forward(x)


class Diverging(ResNet):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * float("nan")


class Greedy(ResNet):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            torch.empty(2**50)
        return super().forward(x)


class Deadly(ResNet):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().forward(x)


def _as(kind: type[ResNet], given: dict[str, Any]) -> ResNet:
    model = test_resnet(**given)
    model.__class__ = kind
    return model


@register_model
def faulty_raising(pretrained: bool = False, **given: Any) -> ResNet:
    return _as(Raising, given)


@register_model
def faulty_diverging(pretrained: bool = False, **given: Any) -> ResNet:
    return _as(Diverging, given)


@register_model
def faulty_greedy(pretrained: bool = False, **given: Any) -> ResNet:
    return _as(Greedy, given)


@register_model
def faulty_deadly(pretrained: bool = False, **given: Any) -> ResNet:
    return _as(Deadly, given)
