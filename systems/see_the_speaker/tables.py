"""The paper's ablations as rows of settings: Tables III to V, X and XI (``voxface ablate``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from systems.base import Batch
from systems.common.fidelity import psnr
from systems.common.landmarks import pose_free_lips
from systems.common.losses import feature_distance
from systems.common.noise import item_generators
from systems.common.tables import Networks, Row, Table
from systems.see_the_speaker.codebook import enlarge
from systems.see_the_speaker.hr_codebook import high_resolution_base, motion_side
from systems.see_the_speaker.motion_sampling import sample_window
from systems.see_the_speaker.motion_space import LIP_CONTEXT
from systems.see_the_speaker.motion_wrapping import adapt_lips, decode, read_motion, read_source, wrap
from systems.see_the_speaker.portrait_pipeline import PortraitGenerator
from systems.see_the_speaker.warp import resize

SCFP = ("conre", "face_prior", "portrait_diffusion")
HRTF = ("conre", "lip_landmarks", "motion_space", "hr_codebook")
FACES = ("L1 ↓", "L2 ↓", "cos ↓", "gender ↑", "age ↑", "R@1 ↑", "R@2 ↑", "R@5 ↑")
VIDEO = ("LSE-D ↓", "LSE-C ↑", "LPIPS ↓", "SSIM ↑", "PSNR ↑", "FID ↓", "MAD ↓")
SEED = 0
EVERY = 8  # of the frames of a sampled motion, so many apart are rendered
SMALL_TRANSFORMER = {  # a transformer that two cores can train; published sizes need published weights
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": (16, 16, 16, 16, 16, 16, 16),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
}


# ------------------------------------------------------------------ speech to portrait
def portraits(nets: Networks, full: Networks, batches: Iterable[Batch], macs: str = "") -> Mapping[str, list[float]]:
    """Feature similarity and retrieval of the portraits of one seed, by the full model's E_f, standardised.

    L1 and L2 are means over dimensions, cos is 1 - cos in %; R@k in %, the portrait being the query and all true faces
    of the split the gallery.
    """
    generator = PortraitGenerator(nets["conre"], nets["face_prior"], nets["portrait_diffusion"])
    encoder = full["conre"]["face_encoder"]
    made, true, speakers = [], [], []
    for batch in batches:
        drawn = generator(batch["spectrogram"], [SEED] * len(batch["key"]))
        made.append(encoder.standardise(encoder(drawn)))
        true.append(encoder.standardise(encoder(batch["frames"][:, 0])))
        speakers.append(batch["speaker"])
    z, z_f, who = torch.cat(made), torch.cat(true), torch.cat(speakers)
    away = z - z_f
    values = {
        "L1 ↓": away.abs().mean(1).tolist(),
        "L2 ↓": away.square().mean(1).tolist(),
        "cos ↓": (100 * (1 - F.cosine_similarity(z, z_f))).tolist(),
    }
    likeness = F.normalize(z, dim=1) @ F.normalize(z_f, dim=1).T
    order = likeness.argsort(dim=1, descending=True, stable=True)
    right = who[order] == who[:, None]
    values |= {f"R@{k} ↑": (100.0 * right[:, :k].any(1)).tolist() for k in (1, 2, 5)}
    if macs:
        dim = nets["portrait_diffusion"]["saw"].config.dim
        values["FLOPs (G)"] = [{"linear": 2, "attention": 8}[macs] * dim**2 / 1e9] * len(who)
    return values


# ------------------------------------------------------------------ portrait to video
def rebuilt(
    nets: Networks, full: Networks, batches: Iterable[Batch], refiner: bool, codebook: bool
) -> Mapping[str, list[float]]:
    """Frames rebuilt from another frame of their video, lips as heard; all at the codebook's resolution."""
    values: dict[str, list[float]] = {}
    space = nets["motion_space"]
    for batch in batches:
        source, target = batch["frames"][:, 0], batch["frames"][:, 1]
        side = motion_side(space)
        read = read_source(space, resize(source, side))
        heard = adapt_lips(
            space, read, nets["lip_landmarks"]["lip_predictor"](batch["audio"][:, 1], batch["voice"])[:, 0]
        )
        refine = torch.full((len(source),), float(refiner), device=source.device)
        wrapped = wrap(space, read, read_motion(space, resize(target, side)), heard, refine)
        if codebook:
            base = high_resolution_base(space, read, wrapped, source)
            high = nets["hr_codebook"]
            z_q, _, _ = high["codebook"](wrapped.z_wr)
            made = high["hr_decoder"](z_q, wrapped.skips, base, torch.ones_like(refine))
        else:
            made = enlarge(decode(space, wrapped), source.shape[-1])
        _add(values, likeness(made, target, full))
    return values


def spoken(nets: Networks, full: Networks, batches: Iterable[Batch]) -> Mapping[str, list[float]]:
    """Frames of motion that was drawn for the speech, from the first frame on; lips as in the truth."""
    values: dict[str, list[float]] = {}
    space, unet = nets["motion_space"], nets["motion_diffusion"]["motion_unet"]
    for batch in batches:
        frames = batch["frames"]
        read = read_source(space, frames[:, 0])
        known = read.z_m[:, None].expand(-1, frames.shape[1], -1)
        mask = torch.zeros(frames.shape[:2], device=frames.device)
        mask[:, 0] = 1
        generators = item_generators(batch, torch.Generator().manual_seed(SEED))
        z_m = sample_window(unet, batch["audio"], known, mask, read.z_m, generators)
        lips = pose_free_lips(batch["landmarks"])
        found = []
        for i in range(EVERY - 1, frames.shape[1], EVERY):
            made = decode(space, wrap(space, read, z_m[:, i], lips[:, i]))
            found.append(likeness(made, frames[:, i], full))
        _add(values, {name: torch.stack([each[name] for each in found]).mean(0) for name in found[0]})
    return values


def likeness(made: Tensor, true: Tensor, full: Networks) -> dict[str, Tensor]:
    """LPIPS with the features of the full model's E_f, SSIM and PSNR of pictures in [-1, 1], [B] each."""
    encoder = full["conre"]["face_encoder"]
    eyes = [encoder.features(resize(x.clamp(-1, 1), encoder.config.size)) for x in (made, true)]
    return {
        "LPIPS ↓": feature_distance(*eyes),
        "SSIM ↑": structure(made.clamp(-1, 1), true),
        "PSNR ↑": psnr(made, true),
    }


def structure(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity [B] of pictures in [-1, 1] (Wang et al., 2004)."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    return structural_similarity_index_measure(a, b, data_range=2.0, reduction="none").reshape(-1)


def _add(values: dict[str, list[float]], found: Mapping[str, Tensor]) -> None:
    for name, value in found.items():
        values.setdefault(name, []).extend(value.tolist())


def _figures(columns: Sequence[str], *numbers: float | None) -> dict[str, float]:
    return {column: number for column, number in zip(columns, numbers, strict=True) if number is not None}


# ------------------------------------------------------------------ the tables
_EYES = "L1, L2, cos and R@k are of E_f of the last row, not of VGG-Face: compare rows, not with the paper"
_FACEPP = "gender and age need Face++, a service: not measured"
_VIDEO = "LPIPS is of E_f of the last row; LSE-D, LSE-C need SyncNet, FID Inception, MAD RAFT: not measured"
_ADAPTIVE = _figures(FACES, 31.26, 1.14, 10.35, 99.1, 86.4, 21.45, 36.21, 59.86)
_FULL = _figures(VIDEO, 6.61, 8.65, 0.11, 0.67, 29.66, 29.28, 0.0042)
_NO_REFINER = {"motion_space": {"refiner_off": 1.0}}

TABLES = {
    "III": Table(
        title="Table III: components of SCFP",
        columns=FACES,
        rows=(
            Row("with ConRe", {"portrait_diffusion": {"prior": "none"}}),
            Row("with ConRe and SAW", paper=_ADAPTIVE),
        ),
        stages=SCFP,
        stage="portrait_diffusion",
        measure=portraits,
        notes=(_EYES, _FACEPP, "the rows without ConRe have no setting yet: E_s would have to learn with the UNet"),
    ),
    "IV": Table(
        title="Table IV: weight of the face prior",
        columns=FACES,
        rows=(
            Row(
                "sample-equivalent β⁰",
                {"portrait_diffusion": {"prior": "constant"}},
                paper=_figures(FACES, 35.01, 1.48, 12.81, 98.8, 84.5, 19.86, 31.41, 51.48),
            ),
            Row("sample-adaptive β", paper=_ADAPTIVE),
        ),
        stages=SCFP,
        stage="portrait_diffusion",
        measure=portraits,
        notes=(_EYES, _FACEPP),
    ),
    "V": Table(
        title="Table V: structure of the weighting",
        columns=(*FACES, "FLOPs (G)"),
        rows=(
            Row(
                "Attention",
                {"portrait_diffusion": {"prior": "attention"}},
                {"macs": "attention"},
                _figures((*FACES, "FLOPs (G)"), 31.20, 1.09, 10.31, 99.1, 86.6, 21.49, 36.27, 59.97, 0.0328),
            ),
            Row("Linear", how={"macs": "linear"}, paper=_ADAPTIVE | {"FLOPs (G)": 0.0082}),
        ),
        stages=SCFP,
        stage="portrait_diffusion",
        measure=portraits,
        notes=(_EYES, _FACEPP, "FLOPs: multiply-adds per token of SAW, 2 d² and 8 d², at this preset's d"),
    ),
    "X": Table(
        title="Table X: components of HRTF",
        columns=VIDEO,
        rows=(
            Row(
                "Baseline",
                _NO_REFINER,
                {"refiner": False, "codebook": False},
                _figures(VIDEO, 8.38, 6.95, 0.15, 0.63, 29.21, 36.78, 0.0058),
            ),
            Row(
                "Baseline, codebook",
                _NO_REFINER,
                {"refiner": False, "codebook": True},
                _figures(VIDEO, 8.24, 7.13, 0.13, 0.64, 29.64, 29.31, 0.0048),
            ),
            Row(
                "Baseline, lip refiner",
                {},
                {"refiner": True, "codebook": False},
                _figures(VIDEO, 7.10, 8.44, 0.12, 0.66, 29.62, 33.06, 0.0054),
            ),
            Row("Baseline, lip refiner, codebook", {}, {"refiner": True, "codebook": True}, _FULL),
        ),
        stages=HRTF,
        stage="hr_codebook",
        measure=rebuilt,
        more=("audio", "voice"),
        context=LIP_CONTEXT,
        notes=(_VIDEO, "frames are rebuilt from another of their video, lips as heard; the paper's are of whole talks"),
    ),
    "XI": Table(
        title="Table XI: speech encoder of the motion",
        columns=VIDEO,
        rows=(
            Row(
                "Wav2Vec",
                {"motion_diffusion": {"speech": "wav2vec2", "transformer": SMALL_TRANSFORMER}},
                paper=_figures(VIDEO, 7.46, 7.78, 0.13, 0.61, 29.57, 31.24, 0.0045),
            ),
            Row(
                "HuBERT",
                {"motion_diffusion": {"speech": "hubert", "transformer": SMALL_TRANSFORMER}},
                paper=_FULL,
            ),
        ),
        stages=("conre", "lip_landmarks", "motion_space", "motion_diffusion"),
        stage="motion_diffusion",
        measure=spoken,
        more=("landmarks",),
        notes=(_VIDEO, "both encoders are small and learn from nothing: published weights are what the paper compares"),
    ),
    "VI": Table(
        title="Table VI: speech encoder of SCFP",
        columns=FACES,
        rows=(),
        stages=SCFP,
        stage="portrait_diffusion",
        measure=portraits,
        notes=("E_s is the CNN; wav2vec 2.0 in its place has no setting yet",),
    ),
}
