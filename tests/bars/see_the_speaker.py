"""What each stage of See the Speaker must be better than: the bars of its ``tiny``, computed here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from bars.claims import Claim, Claims, Subject
from bars.motion import distance
from bars.pictures import captioned
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch import Tensor, nn

from contracts.files import commit
from contracts.index import EXTRA, read_index
from contracts.sample import SAMPLES_PER_FRAME
from systems.base import Batch
from systems.common.landmarks import mouth_opening, pose_free_lips
from systems.common.noise import item_generators, normal
from systems.common.sheet import to_uint8
from systems.see_the_speaker.denoising import TIMES, make_scheduler
from systems.see_the_speaker.motion_sampling import sample_window
from systems.see_the_speaker.portrait_diffusion import CHECKED_TIMES, PortraitDiffusion
from systems.see_the_speaker.portrait_pipeline import PortraitGenerator
from systems.see_the_speaker.saw import SampleAdaptiveWeighting
from training.prove import Proof

RANKS = (1, 2, 5)
SEEDS = 8
COLUMNS = 8
WINDOWS = 8  # of every clip, in which lips are heard: of one, two seconds are a toss of a coin
COPY_SHARE = 0.85  # of the L1 error of copying the source frame
LEAST_PERPLEXITY = 32
DIRECTIONS = 12  # of z_m, in which motions are compared
CORPUS_COLUMN = EXTRA + "source_repo"  # the corpus's table says what each clip was taken from


# ------------------------------------------------------------------ conre
def conre(s: Subject) -> Iterator[Claim]:
    """Faces are redrawn better than by the mean face; voices find their faces more often than by chance."""
    faces = torch.cat([batch["frames"][:, 0] for batch in s.batches("train")])
    mean_face = faces.mean(0)
    corpus_of = _corpora(s)
    for split in s.readers:
        mean = s.each(split, lambda batch: (mean_face - batch["frames"][:, 0]).abs().mean((1, 2, 3)))
        yield s.claim(split, "reconstruction_l1", "mean training face", "lower", "reconstruction_l1", mean, on="new")
        likeness, speakers, genders = _likeness(s, split)
        keys = s.scores[split].keys
        everyone = np.ones_like(likeness, bool)
        within = {
            "": everyone,
            " within gender": genders[:, None] == genders[None],
            " within corpus": np.array([[corpus_of[a] == corpus_of[b] for a in keys] for b in keys]),
        }
        for name, gallery in within.items():
            for k in RANKS if not name else RANKS[:1]:
                found, chance = recall(likeness, speakers, gallery, k)
                yield s.claim(split, f"R@{k}{name}", "chance", "higher", found, chance, on="known")


def _likeness(s: Subject, split: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cosine of every voice (rows) with every face (columns), and the speakers and genders of the items."""
    voices, faces, speakers = [], [], []
    encoder = s.model["conre"]["face_encoder"] if "conre" in s.model else s.model["face_encoder"]
    for batch in s.batches(split):  # type: ignore[arg-type]
        voices.append(F.normalize(s.model["speech_encoder"](batch["spectrogram"]), dim=1))
        faces.append(F.normalize(encoder.standardise(encoder(batch["frames"][:, 0])), dim=1))
        speakers.append(batch["speaker"])
    gender_of = {sample.key: sample.gender for half in s.proof.halves.values() for sample in half.selection.samples}
    genders = np.array([gender_of[key] for key in s.scores[split].keys])  # type: ignore[index]
    return (torch.cat(voices) @ torch.cat(faces).T).cpu().numpy(), torch.cat(speakers).cpu().numpy(), genders


def recall(likeness: np.ndarray, speakers: np.ndarray, gallery: np.ndarray, k: int) -> tuple[list[float], list[float]]:
    """Whether the speaker is among the ``k`` likest of each row's gallery, and how often chance would find them.

    NaN where a gallery holds nobody else, or no more than ``k``.
    """
    found, chance = [], []
    for row, own, among in zip(likeness, speakers, gallery, strict=True):
        right = speakers[among] == own
        n, m = len(right), int(right.sum())
        if m == n or k >= n:
            found.append(math.nan)
            chance.append(math.nan)
            continue
        best = np.argsort(-row[among], kind="stable")[:k]
        found.append(float(right[best].any()))
        chance.append(1 - math.comb(n - m, k) / math.comb(n, k))
    return found, chance


def _corpora(s: Subject) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for half in s.proof.halves.values():
        index = read_index(half.dataset)
        column = CORPUS_COLUMN if CORPUS_COLUMN in index.column_names else "corpus"
        found |= dict(zip(index["key"].to_pylist(), index[column].to_pylist(), strict=True))
    return found


# ------------------------------------------------------------------ portrait_diffusion
def portrait_diffusion(s: Subject) -> Iterator[Claim]:
    """Denoises better than the closed form, and better with the right voice than with another's."""
    encoder = s.model["conre"]["face_encoder"]
    codes = torch.cat([encoder.standardise(encoder(batch["frames"][:, 0])) for batch in s.batches("train")])
    mean, variance = codes.mean(0), codes.var(0, correction=0)
    for split in s.readers:
        linear = s.each(split, lambda batch: _linear_error(s, batch, mean, variance))
        yield s.claim(split, "denoising", "Wiener, closed form", "lower", "denoising", linear, on="known")
        other = "denoising_other_speech"
        yield s.claim(split, "denoising (voice)", "another's voice", "lower", "denoising", other, on="known")
        plain = _portraits(s, split, "none")
        for name in ("constant", "own"):
            drawn = _portraits(s, split, name)
            called = {"constant": "β⁰", "own": "β"}[name]
            for measure in ("spread of seeds", "face-feature distance"):
                better = "higher" if measure.startswith("spread") else "lower"
                yield s.claim(split, f"{measure} with {called}", "no prior", better, drawn[measure], plain[measure])


def _linear_error(s: Subject, batch: Batch, mean: Tensor, variance: Tensor) -> Tensor:
    """Squared error [B] in ε of the best guess from each dimension's mean and variance, at the stage's own draws."""
    encoder = s.model["conre"]["face_encoder"]
    z_0 = encoder.standardise(encoder(batch["frames"][:, 0]))
    noise = normal(item_generators(batch, s.rng()), CHECKED_TIMES, z_0.shape[1]).to(z_0)
    errors = []
    for i in range(CHECKED_TIMES):
        alpha = make_scheduler().alphas_cumprod[(2 * i + 1) * TIMES // (2 * CHECKED_TIMES)].to(z_0)
        z_t = alpha.sqrt() * z_0 + (1 - alpha).sqrt() * noise[:, i]
        gain = alpha.sqrt() * variance / (alpha * variance + 1 - alpha)
        guess = mean + gain * (z_t - alpha.sqrt() * mean)
        errors.append((z_t - alpha.sqrt() * guess) / (1 - alpha).sqrt() - noise[:, i])
    return torch.stack(errors).square().mean((0, 2))


def _portraits(s: Subject, split: str, prior: str) -> dict[str, list[float]]:
    """Of eight seeds per voice: variance of the standardised codes, and 1 - cos of E_f between portrait and face."""
    networks = {name: s.model[name] for name in ("unet", "speech_tokens", "saw", "wiener")}
    if prior != "own":
        config = dict(networks["saw"].config) | {"prior": prior}
        names = ("dim", "prior", "prior_at", "steps", "times")
        networks["saw"] = SampleAdaptiveWeighting(**{name: config[name] for name in names})
    generator = PortraitGenerator(s.model["conre"], s.model["face_prior"], networks)
    encoder = s.model["conre"]["face_encoder"]
    spread: list[float] = []
    away: list[float] = []
    for batch in s.batches(split):  # type: ignore[arg-type]
        true = encoder.standardise(encoder(batch["frames"][:, 0]))
        drawn = [generator(batch["spectrogram"], [seed] * len(true)) for seed in range(SEEDS)]
        codes = torch.stack([encoder.standardise(encoder(faces)) for faces in drawn])
        spread += codes.var(0).mean(1).cpu().tolist()
        away += (1 - F.cosine_similarity(codes, true[None], dim=2)).mean(0).cpu().tolist()
    return {"spread of seeds": spread, "face-feature distance": away}


# ------------------------------------------------------------------ lip_landmarks
def lip_landmarks(s: Subject) -> Iterator[Claim]:
    """The mouth opens when the true one does, more than under the same speech begun elsewhere."""
    predictor = s.model["lip_predictor"]

    def opening(batch: Batch, later: bool) -> Tensor:
        heard = _begun_later(batch["audio"], s.stage.view.frames) if later else batch["audio"]
        return correlation(mouth_opening(predictor(heard, batch["voice"])), _opening(batch))

    def mean_shape(batch: Batch) -> Tensor:
        true = pose_free_lips(batch["landmarks"])
        return ((true.mean(1, keepdim=True) - true) / predictor.deviation).abs().mean((1, 2, 3))

    for split in s.readers:
        ours, shuffled = (
            s.each(split, lambda batch, later=later: opening(batch, later), WINDOWS) for later in (False, True)
        )
        yield s.claim(split, "opening_correlation", "shuffled speech", "higher", ours, shuffled, on="new")
        yield s.claim(split, "l1", "speaker's mean shape", "lower", "l1", s.each(split, mean_shape))


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation [B] over time of [B, T] and [B, T]; 0 where either stands still."""
    pairs = zip(a.double().cpu().numpy(), b.double().cpu().numpy(), strict=True)
    return torch.tensor([np.corrcoef(x, y)[0, 1] if min(x.std(), y.std()) > 1e-8 else 0.0 for x, y in pairs])


# ------------------------------------------------------------------ motion_space
def motion_space(s: Subject) -> Iterator[Claim]:
    """The target is rebuilt better than by a share of copying; lips better with the refiner than without."""
    for split in s.readers:
        copy = s.each(split, lambda batch: (batch["frames"][:, 0] - batch["frames"][:, 1]).abs().mean((1, 2, 3)))
        share = [COPY_SHARE * value for value in copy]
        yield s.claim(split, "l1", f"{COPY_SHARE} × copying the source", "lower", "l1", share, on="new")
        yield s.claim(split, "l1 (copy)", "copying the source", "lower", "l1", copy)
        yield s.claim(split, "lip_l1", "without the refiner", "lower", "lip_l1", "lip_l1_without_refiner", on="new")
        yield s.claim(split, "lip_l1 (copy)", "copying the source", "lower", "lip_l1", "lip_l1_copy")


# ------------------------------------------------------------------ hr_codebook
def hr_codebook(s: Subject) -> Iterator[Claim]:
    """A frame from its codes beats bicubic from the grid and the nearest training image; many codes are used."""
    library = torch.cat([batch["frames"][:, 1] for batch in s.batches("train")])
    grid = s.model["motion_space"]["lip_guider"].config.grid

    def bicubic(batch: Batch) -> Tensor:
        target = batch["frames"][:, 1]
        small = F.interpolate(target, size=(grid, grid), mode="bicubic", antialias=True)
        return decibels(F.interpolate(small, size=target.shape[-2:], mode="bicubic").clamp(-1, 1), target)

    def nearest(batch: Batch) -> Tensor:
        target = batch["frames"][:, 1]
        error = torch.stack([(library - image).square().mean((1, 2, 3)).min() for image in target])
        return 10 * torch.log10(4 / error)

    for split in s.readers:
        for name, other in (("bicubic from the grid", bicubic), ("nearest training image", nearest)):
            measure = "psnr" if other is bicubic else "psnr (library)"
            yield s.claim(split, measure, name, "higher", "psnr", s.each(split, other), on="new")
        yield s.claim(split, "perplexity", f"{LEAST_PERPLEXITY}", "higher", "perplexity", LEAST_PERPLEXITY, on="new")
        bicubic_of_low = "psnr_rendered_bicubic"
        yield s.claim(split, "psnr_rendered", "motion space, enlarged", "higher", "psnr_rendered", bicubic_of_low)


def decibels(made: Tensor, true: Tensor) -> Tensor:
    """PSNR [B] of pictures in [-1, 1]."""
    return 10 * torch.log10(4 / (made - true).square().mean((1, 2, 3)).clamp_min(1e-10))


# ------------------------------------------------------------------ motion_diffusion
def motion_diffusion(s: Subject) -> Iterator[Claim]:
    """Motion that is nearer to the truth than another's shuffled in time, or none; the mouth follows the speech.

    z_m in at most twelve principal directions of the training motion; the mouth's opening is read from z_m by a
    ridge regression of the training frames.
    """
    pairs = [(_codes(s, batch), _opening(batch)) for batch in s.batches("train", "landmarks")]
    codes = torch.cat([code for code, _ in pairs])
    basis, spread = principal(codes, DIRECTIONS)
    reading = ridge(codes, torch.cat([opening for _, opening in pairs]))
    for split in s.readers:
        values: dict[str, list[float]] = {}
        for batch in s.batches(split, "landmarks"):
            true, opening = _codes(s, batch), _opening(batch)
            motion = {"ours": _sampled(s, batch, true), "held": true[:, :1].expand_as(true), "true": true}
            motion["other"] = _sampled(s, batch | {"audio": _begun_later(batch["audio"], true.shape[1])}, true)
            motion["shuffled"] = _shuffled(true.roll(1, 0), true)
            for name in ("ours", "held", "shuffled"):
                seen = zip(_seen(motion[name], basis, spread), _seen(true, basis, spread), strict=True)
                values.setdefault(f"SND {name}", []).extend(distance(a, b) for a, b in seen)
            for name in ("ours", "other", "true"):
                values.setdefault(f"mouth {name}", []).extend(correlation(motion[name] @ reading, opening).tolist())
        for name, called in (("shuffled", "another's motion, shuffled"), ("held", "first frame held")):
            ours = values["SND ours"]
            yield s.claim(split, f"SND[z_m] ({name})", called, "lower", ours, values[f"SND {name}"], on="known")
        mouth = ("opening_correlation[z_m]", "shuffled speech", "higher", values["mouth ours"], values["mouth other"])
        yield s.claim(split, *mouth, on="known")
        yield s.claim(split, "opening of the true z_m", "standing still", "higher", values["mouth true"], 0.0)
        yield s.claim(split, "loss", "Gaussian process, closed form", "lower", "loss", "loss_gaussian")
        yield s.claim(split, "loss (speech)", "another moment's speech", "lower", "loss", "loss_other_moment")


def _opening(batch: Batch) -> Tensor:
    return mouth_opening(pose_free_lips(batch["landmarks"]))


def _begun_later(audio: Tensor, frames: int) -> Tensor:
    """The same sound, begun half a span later, going round."""
    return audio.roll(frames // 2 * SAMPLES_PER_FRAME, 1)


def ridge(codes: Tensor, opening: Tensor, share: float = 0.01) -> Tensor:
    """Weights [d] that tell the opening [N, n] from codes [N, n, d], both about their clip's mean."""
    x, y = ((v - v.mean(1, keepdim=True)).flatten(0, 1).double() for v in (codes, opening))
    gram = x.T @ x
    return torch.linalg.solve(gram + share * gram.diagonal().mean() * torch.eye(len(gram)).to(gram), x.T @ y).float()


def _codes(s: Subject, batch: Batch) -> Tensor:
    """z_m [B, n, d] of the batch's frames."""
    nets, frames = s.model["motion_space"], batch["frames"]
    latent = nets["image_encoder"](frames.flatten(0, 1))[-1]
    return nets["motion_encoder"](latent).unflatten(0, frames.shape[:2])


def _sampled(s: Subject, batch: Batch, true: Tensor) -> Tensor:
    mask = torch.zeros(true.shape[:2], device=true.device)
    mask[:, 0] = 1
    generators = item_generators(batch, s.rng())
    return sample_window(s.model["motion_unet"], batch["audio"], true, mask, true[:, 0], generators)


def _shuffled(others: Tensor, true: Tensor) -> Tensor:
    """Others' motion in an order drawn once, moved to start where the truth does."""
    order = torch.randperm(true.shape[1], generator=torch.Generator().manual_seed(0))
    moved = others[:, order]
    return true[:, :1] + moved - moved[:, :1]


def principal(codes: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Directions [d, k] along which codes [N, n, d] move most about their clip's mean, and their deviations [k]."""
    moving = (codes - codes.mean(1, keepdim=True)).flatten(0, 1)
    _, deviations, directions = torch.linalg.svd(moving, full_matrices=False)
    k = min(most, moving.shape[1])
    return directions[:k].T, deviations[:k] / max(len(moving), 1) ** 0.5


def _seen(motion: Tensor, basis: Tensor, spread: Tensor) -> Sequence[np.ndarray]:
    return list(((motion @ basis) / spread).double().cpu().numpy())


# ------------------------------------------------------------------ pictures
def portraits(proof: Proof, stages: Mapping[str, nn.ModuleDict], folder: Path) -> None:
    """``portraits-<split>.png``: what was drawn for a voice, beside the true face and the mean training face."""
    generator = PortraitGenerator(stages["conre"], stages["face_prior"], stages["portrait_diffusion"])
    mean_face = stages["conre"]["face_decoder"].mean_face
    stage = PortraitDiffusion.preset(proof.preset)
    for split in proof.halves:
        batch = next(iter(proof.reader(stage, split).passes()), None)
        if batch is None:
            continue
        batch = {name: values[:COLUMNS] for name, values in batch.items()}
        faces = batch["frames"][:, 0]
        rows = {"true face": faces}
        rows |= {f"voice, seed {i}": generator(batch["spectrogram"], [i] * len(faces)) for i in range(3)}
        rows |= {"mean face": mean_face[None].expand(len(faces), -1, -1, -1)}
        sheet = captioned({name: to_uint8(row) for name, row in rows.items()}, f"portraits from speech alone: {split}")
        with commit(folder / f"portraits-{split}.png") as file:
            FigureCanvasAgg(sheet).print_png(file)


PICTURES = portraits
CLAIMS: Mapping[str, Claims] = {
    "conre": conre,
    "portrait_diffusion": portrait_diffusion,
    "lip_landmarks": lip_landmarks,
    "motion_space": motion_space,
    "hr_codebook": hr_codebook,
    "motion_diffusion": motion_diffusion,
}
