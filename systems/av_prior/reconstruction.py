"""The image losses of eq. (5) and who learns from them, shared by both stages that train G."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from systems.common.adversarial import generator_loss
from systems.common.losses import detached_features, feature_distance

STAND_INS = ("VGG19 -> av_prior.identity_encoder",)  # whose features L_VGG compares


def reconstruction_losses(
    image: Tensor, made: Tensor, identity_encoder: Any, discriminator: Any, *, weight_vgg: float, weight_gan: float
) -> dict[str, Tensor]:
    """L_L1, and as far as their weights are not zero L_VGG and L_GAN, of ``made`` beside ``image``.

    Both [B, 3, S, S] in [-1, 1]. Gradients reach the picture, not the loss networks.
    """
    losses = {"l1": (image - made).abs().mean()}  # L_L1 of eq. (5), §3.1
    if weight_vgg:
        with torch.no_grad():
            wanted = identity_encoder.features(image)
        losses["vgg"] = feature_distance(detached_features(identity_encoder, made), wanted).mean()
    if weight_gan:
        losses["gan"] = generator_loss(discriminator(made))
    return losses


def two_sides(
    model: nn.ModuleDict, ours: Iterable[str], *, rate: float, rate_critic: float, beta: float
) -> dict[str, Optimizer]:
    """Adam for the networks called ``ours``, and for the discriminator, with PC-AVS's first moment."""
    return {
        "generator": Adam([p for name in ours for p in model[name].parameters()], rate, betas=(beta, 0.999)),
        "discriminator": Adam(model["discriminator"].parameters(), rate_critic, betas=(beta, 0.999)),
    }
