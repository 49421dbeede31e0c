from contract import TrainedContract

from systems.see_the_speaker.lip_landmarks import LipLandmarks


class TestLipLandmarks(TrainedContract):
    system = "see_the_speaker"
    stage = LipLandmarks
    paper_parameters = 98.74
