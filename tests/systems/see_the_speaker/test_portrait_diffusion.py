from typing import ClassVar

from contract import TrainedContract
from torch import nn

from systems.see_the_speaker.conre import Conre
from systems.see_the_speaker.face_prior import FacePrior, FacePriorStage
from systems.see_the_speaker.portrait_diffusion import PortraitDiffusion


class TestPortraitDiffusion(TrainedContract):
    system = "see_the_speaker"
    stage = PortraitDiffusion
    lineage = (Conre, FacePriorStage)
    batch_measures = ("denoising_other_speech",)
    paper_parents: ClassVar = {"face_prior": lambda: nn.ModuleDict({"prior": FacePrior()})}
    paper_parameters = 340.098
