"""The image losses of eqs. (14) to (17), shared by motion space and codebook."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from systems.base import Losses
from systems.common.adversarial import generator_loss
from systems.see_the_speaker.warp import resize

STAND_INS = ("VGG19 -> conre.face_encoder",)  # the loss network of eq. (16) when VGG19's weights are absent


def image_losses(
    target: Tensor,
    result: Tensor,
    features: Any,
    discriminator: Any,
    *,
    weight_vgg: float,
    weight_adv: float,
    judged: int,
) -> Losses:
    """Eq. (14): L_re + L_vgg + L_adv of ``result`` against ``target`` [B, 3, S, S] in [-1, 1].

    ``features``: the face encoder that stands in for VGG19. ``judged``: how many items the two
    networks see (0: all).
    """
    l_re = (target - result).abs().mean()  # eq. (15), §III-B1
    total, terms = l_re, {"l_re": l_re}
    if weight_vgg:
        side, few = features.config.size, slice(judged or None)
        with torch.no_grad():
            theirs = features.features(resize(target[few], side))
        ours = features.features(resize(result[few], side))
        l_vgg = torch.stack([(a - b).abs().mean() for a, b in zip(ours, theirs)]).sum()  # eq. (16), §III-B1
        total, terms = total + weight_vgg * l_vgg, terms | {"l_vgg": l_vgg}
    if weight_adv:
        logits = discriminator(result[:judged] if judged else result)
        l_adv = generator_loss(logits)  # eq. (17), §III-B1
        total, terms = total + weight_adv * l_adv, terms | {"l_adv": l_adv}
    return Losses(total, {name: term.detach() for name, term in terms.items()})
