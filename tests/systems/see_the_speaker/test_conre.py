from contract import TrainedContract

from systems.see_the_speaker.conre import Conre


class TestConre(TrainedContract):
    system = "see_the_speaker"
    stage = Conre
    batch_measures = ("recall_at_1", "recall_at_1_by_chance")
    paper_parameters = 299.235  # with the UNet and SAW 639.3 M; Table XII leaves 640 M for SCFP
