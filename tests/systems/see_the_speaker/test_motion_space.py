from contract import TrainedContract

from systems.see_the_speaker.conre import Conre
from systems.see_the_speaker.lip_landmarks import LipLandmarks
from systems.see_the_speaker.motion_space import MotionSpace


class TestMotionSpace(TrainedContract):
    system = "see_the_speaker"
    stage = MotionSpace
    items = 2
    lineage = (Conre, LipLandmarks)
    # displacements do not feel a constant added to both codes
    no_gradient = ("motion_encoder.linear.bias", "motion_encoder.mlp.4.bias")
    paper_parameters = 43.109
