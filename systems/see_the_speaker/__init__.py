"""See the Speaker (Wang et al.): speech alone in, a talking face out."""

from systems.base import System
from systems.see_the_speaker.conre import Conre
from systems.see_the_speaker.face_prior import FacePriorStage
from systems.see_the_speaker.hr_codebook import HRCodebook
from systems.see_the_speaker.lip_landmarks import LipLandmarks
from systems.see_the_speaker.motion_diffusion import MotionDiffusion
from systems.see_the_speaker.motion_space import MotionSpace
from systems.see_the_speaker.pipeline import SeeTheSpeakerPipeline
from systems.see_the_speaker.portrait_diffusion import PortraitDiffusion
from systems.see_the_speaker.tables import TABLES

SYSTEM = System(
    name="see_the_speaker",
    paper="See the Speaker: Crafting High-Resolution Talking Faces from Speech with Prior Guidance and Region"
    " Refinement (Wang, Wang, Cheng, Liu)",
    # Lip landmarks come before the motion space: its lip refiner trains on predicted lips too.
    stages=(Conre, FacePriorStage, PortraitDiffusion, LipLandmarks, MotionSpace, HRCodebook, MotionDiffusion),
    inputs=frozenset({"audio"}),
    pipeline=SeeTheSpeakerPipeline,
    proof={
        "conre": {"steps": 400},
        "portrait_diffusion": {"steps": 300},
        "lip_landmarks": {"steps": 200},
        "motion_space": {"steps": 700},
        "hr_codebook": {"steps": 400},
        "motion_diffusion": {"steps": 400},
    },
    tables=TABLES,
)
