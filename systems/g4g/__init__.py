"""G4G (Zhang et al.): dubs an existing video with new speech."""

from systems.base import System
from systems.g4g.dubbing import G4GStage
from systems.g4g.pipeline import G4GPipeline
from systems.g4g.sync_expert import SyncExpertStage
from systems.g4g.tables import TABLES

SYSTEM = System(
    name="g4g",
    paper="G4G: A Generic Framework for High Fidelity Talking Face Generation with Fine-grained Intra-modal Alignment"
    " (Zhang, Chen, Wang, Yu, Qi, Wu)",
    stages=(SyncExpertStage, G4GStage),
    inputs=frozenset({"audio", "video"}),
    pipeline=G4GPipeline,
    tables=TABLES,
    proof={"sync_expert": {"steps": 300}, "g4g": {"steps": 400}},
)
