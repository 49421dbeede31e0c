"""TalkFormer (Zhong et al.): landmark-based latent diffusion draws the lower face of a video anew, to new speech."""

from systems.base import System
from systems.talkformer.autoencoder import Autoencoder
from systems.talkformer.pipeline import TalkFormerPipeline
from systems.talkformer.talkformer import TalkFormerStage

SYSTEM = System(
    name="talkformer",
    paper="High-Fidelity and Lip-Synced Talking Face Synthesis via Landmark-Based Diffusion Model"
    " (Zhong, Lin, Chen, Gao, Lin, Li)",
    stages=(Autoencoder, TalkFormerStage),
    inputs=frozenset({"audio", "video"}),
    pipeline=TalkFormerPipeline,
)
