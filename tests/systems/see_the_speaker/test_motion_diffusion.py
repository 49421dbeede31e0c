from contract import TrainedContract

from systems.see_the_speaker.conre import Conre
from systems.see_the_speaker.lip_landmarks import LipLandmarks
from systems.see_the_speaker.motion_diffusion import MotionDiffusion
from systems.see_the_speaker.motion_space import MotionSpace


class TestMotionDiffusion(TrainedContract):
    system = "see_the_speaker"
    stage = MotionDiffusion
    items = 2
    lineage = (Conre, LipLandmarks, MotionSpace)
    paper_parameters = 331.01
