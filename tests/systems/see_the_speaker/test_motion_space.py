from contract import TrainedContract

from systems.see_the_speaker.conre import Conre
from systems.see_the_speaker.lip_landmarks import LipLandmarks
from systems.see_the_speaker.motion_space import MotionSpace


class TestMotionSpace(TrainedContract):
    system = "see_the_speaker"
    stage = MotionSpace
    lineage = (Conre, LipLandmarks)
