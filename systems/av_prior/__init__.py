"""Talking heads by probabilistic audio-to-visual diffusion priors (Yu et al.): lips follow, the rest is drawn."""

from systems.av_prior.disentangle import Disentangle
from systems.av_prior.face_representation import FaceRepresentation
from systems.av_prior.nonlip_prior import NonlipPrior
from systems.av_prior.pipeline import AvPriorPipeline
from systems.base import System

SYSTEM = System(
    name="av_prior",
    paper="Talking Head Generation with Probabilistic Audio-to-Visual Diffusion Priors "
    " (Yu, Yin, Zhou, Wang, Wong, Wang)",
    stages=(FaceRepresentation, Disentangle, NonlipPrior),
    inputs=frozenset({"audio", "portrait"}),
    pipeline=AvPriorPipeline,
)
