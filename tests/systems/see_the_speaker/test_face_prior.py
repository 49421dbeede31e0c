from contract import ComputedContract

from systems.see_the_speaker.conre import Conre
from systems.see_the_speaker.face_prior import FacePriorStage


class TestFacePrior(ComputedContract):
    system = "see_the_speaker"
    stage = FacePriorStage
    lineage = (Conre,)
