from contract import TrainedContract

from systems.see_the_speaker.conre import Conre
from systems.see_the_speaker.hr_codebook import HRCodebook
from systems.see_the_speaker.lip_landmarks import LipLandmarks
from systems.see_the_speaker.motion_space import MotionSpace


class TestHRCodebook(TrainedContract):
    system = "see_the_speaker"
    stage = HRCodebook
    items = 2
    lineage = (Conre, LipLandmarks, MotionSpace)
    batch_measures = ("perplexity",)
    paper_parameters = 16.156
