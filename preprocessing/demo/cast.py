"""Who speaks in the demo corpus: twelve people, how they look and sound, and what each of them says."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from preprocessing.demo.voice import Voice

Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Shape:
    """Factors (1 leaves as is) and shifts (0 leaves as is, in face widths) of the portrait's geometry."""

    jaw: float = 1.0  # width below the mouth
    cheeks: float = 1.0  # width at the cheekbones
    length: float = 1.0  # from the eyes down
    chin: float = 0.0  # longer
    eyes_apart: float = 1.0
    eyes: float = 1.0  # size
    nose_width: float = 1.0
    nose_length: float = 1.0
    mouth: float = 1.0  # width
    lips: float = 1.0  # thickness
    brows: float = 0.0  # higher
    hairline: float = 0.0  # higher
    hair_top: float = 1.0  # volume
    hair_sides: float = 1.0


@dataclass(frozen=True)
class Look:
    """Colours (RGB 0..1 that the mean of the region takes) and things worn."""

    skin: Colour
    hair: Colour
    wear: Colour
    wall: tuple[Colour, Colour]
    pattern: Literal["plain", "glow", "stripes", "tiles", "window", "shelf"] = "plain"
    collar: Literal["crew", "high", "vee"] = "crew"
    lips: Colour | None = None
    iris: Colour = (0.30, 0.20, 0.12)
    brow: float = 0.0  # how much darker and denser
    beard: float = 0.0  # 0 none, 0.35 stubble, 1 full
    moustache: float = 0.0
    long_hair: float = 0.0  # length below the chin, in face widths
    cap: Colour | None = None
    glasses: Literal["", "round", "square"] = ""
    freckles: float = 0.0
    light: float = 0.0  # -1 from the left, 1 from the right
    mirrored: bool = False


@dataclass(frozen=True)
class Speaker:
    """One of the cast."""

    name: str
    gender: Literal["f", "m"]
    voice: Voice
    shape: Shape
    look: Look
    vigour: float = 1.0
    zoom: float = 1.0


_CAST = (
    Speaker(
        "ada", "f", Voice("en-us", "f2", 58, 60, 160), Shape(),
        Look((0.85, 0.66, 0.56), (0.55, 0.42, 0.26), (0.20, 0.35, 0.55), ((0.80, 0.82, 0.84), (0.55, 0.60, 0.66)),
             "glow", iris=(0.28, 0.38, 0.45)), zoom=1.0,
    ),
    Speaker(
        "ben", "m", Voice("en-us", "m3", 38, 50, 150),
        Shape(jaw=1.16, cheeks=1.04, length=1.06, chin=0.04, eyes=0.92, nose_width=1.16, nose_length=1.06,
              lips=0.85, brows=-0.02, hairline=0.12, hair_top=0.80, hair_sides=0.12),
        Look((0.80, 0.60, 0.49), (0.20, 0.14, 0.10), (0.25, 0.28, 0.30), ((0.42, 0.50, 0.46), (0.20, 0.26, 0.24)),
             "shelf", brow=0.8, beard=0.9, moustache=0.9, mirrored=True), zoom=1.02,
    ),
    Speaker(
        "chi", "f", Voice("en-us", "f4", 66, 55, 172),
        Shape(jaw=0.90, cheeks=1.03, length=0.95, eyes_apart=1.05, eyes=1.06, nose_width=1.02, nose_length=0.90,
              mouth=0.92, lips=1.1, hair_top=0.95, hair_sides=0.75),
        Look((0.88, 0.70, 0.56), (0.07, 0.06, 0.07), (0.70, 0.25, 0.32), ((0.93, 0.88, 0.78), (0.80, 0.70, 0.55)),
             "tiles", "vee", lips=(0.75, 0.30, 0.33), brow=0.5, long_hair=0.75, iris=(0.16, 0.10, 0.07)),
    ),
    Speaker(
        "dev", "m", Voice("en", "m1", 44, 60, 165),
        Shape(jaw=1.06, cheeks=0.97, length=1.04, eyes=1.02, nose_width=1.12, nose_length=1.10, lips=1.05,
              hairline=0.09, hair_top=0.98, hair_sides=0.22),
        Look((0.56, 0.38, 0.27), (0.06, 0.05, 0.05), (0.85, 0.80, 0.70), ((0.30, 0.42, 0.60), (0.12, 0.18, 0.32)),
             "window", brow=1.0, beard=0.35, moustache=0.5, glasses="square", iris=(0.16, 0.09, 0.06)), zoom=0.98,
    ),
    Speaker(
        "eva", "f", Voice("en", "f1", 50, 45, 150),
        Shape(jaw=1.04, cheeks=1.03, length=1.05, chin=0.02, eyes=0.90, nose_length=1.10, nose_width=1.06, mouth=1.04,
              lips=0.80, brows=-0.01, hair_top=1.05, hair_sides=1.0),
        Look((0.86, 0.69, 0.62), (0.58, 0.58, 0.59), (0.45, 0.30, 0.50), ((0.66, 0.62, 0.70), (0.42, 0.38, 0.48)),
             "plain", "high", glasses="round", iris=(0.35, 0.45, 0.52), mirrored=True), zoom=0.97, vigour=0.9,
    ),
    Speaker(
        "femi", "m", Voice("en-us", "m7", 30, 45, 145),
        Shape(jaw=1.10, cheeks=1.06, length=1.0, eyes_apart=1.06, nose_width=1.28, nose_length=0.98, mouth=1.08,
              lips=1.32, hairline=0.16, hair_top=0.62, hair_sides=0.05),
        Look((0.34, 0.22, 0.16), (0.05, 0.04, 0.04), (0.82, 0.55, 0.15), ((0.75, 0.80, 0.72), (0.48, 0.58, 0.48)),
             "glow", brow=0.7, beard=0.25, iris=(0.12, 0.07, 0.05)), zoom=1.03, vigour=1.1,
    ),
    Speaker(
        "gia", "f", Voice("en-us", "f5", 62, 70, 168),
        Shape(jaw=0.94, cheeks=0.96, length=1.06, chin=0.03, eyes_apart=0.97, eyes=1.08, nose_width=0.90,
              nose_length=1.05, mouth=1.06, lips=1.15, brows=0.015, hair_top=1.08, hair_sides=1.1),
        Look((0.84, 0.62, 0.52), (0.52, 0.23, 0.12), (0.12, 0.38, 0.30), ((0.30, 0.55, 0.58), (0.10, 0.28, 0.32)),
             "stripes", "vee", lips=(0.78, 0.32, 0.30), freckles=0.8, long_hair=0.9, iris=(0.25, 0.42, 0.30)),
    ),
    Speaker(
        "hal", "m", Voice("en-us", "m5", 24, 35, 140),
        Shape(jaw=1.12, cheeks=0.98, length=1.10, chin=0.05, eyes=0.86, nose_width=1.15, nose_length=1.16, lips=0.72,
              brows=-0.025, hairline=0.22, hair_top=0.72, hair_sides=0.15),
        Look((0.82, 0.61, 0.53), (0.50, 0.50, 0.50), (0.40, 0.14, 0.16), ((0.55, 0.48, 0.40), (0.30, 0.24, 0.20)),
             "shelf", "crew", brow=0.8, moustache=1.0, light=0.5, iris=(0.35, 0.42, 0.48)), vigour=0.85,
    ),
    Speaker(
        "ines", "f", Voice("en-us", "f3", 54, 60, 176),
        Shape(jaw=1.08, cheeks=1.10, length=0.93, eyes_apart=1.03, eyes=1.03, nose_width=1.08, nose_length=0.92,
              mouth=1.0, lips=1.2, hair_top=0.90, hair_sides=0.85),
        Look((0.70, 0.49, 0.36), (0.17, 0.10, 0.07), (0.90, 0.60, 0.62), ((0.85, 0.70, 0.60), (0.66, 0.46, 0.40)),
             "window", "crew", lips=(0.62, 0.22, 0.24), brow=0.6, long_hair=0.5, mirrored=True), zoom=0.96,
    ),
    Speaker(
        "jon", "m", Voice("en", "m4", 46, 65, 160),
        Shape(jaw=0.98, cheeks=0.95, length=1.08, chin=0.03, eyes_apart=0.95, nose_width=0.98, nose_length=1.12,
              mouth=0.95, lips=0.90, hairline=0.03, hair_top=1.0, hair_sides=0.3),
        Look((0.88, 0.66, 0.57), (0.72, 0.55, 0.28), (0.16, 0.20, 0.38), ((0.70, 0.76, 0.82), (0.46, 0.54, 0.64)),
             "tiles", "high", cap=(0.60, 0.18, 0.16), beard=0.5, moustache=0.4, iris=(0.26, 0.40, 0.52)), zoom=0.98,
    ),
    Speaker(
        "kaia", "f", Voice("en-us", "f2", 74, 65, 165),
        Shape(jaw=0.96, cheeks=1.02, length=0.98, eyes_apart=1.05, eyes=1.08, nose_width=1.20, nose_length=0.94,
              mouth=1.06, lips=1.35, hair_top=1.18, hair_sides=1.25),
        Look((0.42, 0.27, 0.19), (0.08, 0.06, 0.05), (0.92, 0.86, 0.74), ((0.88, 0.62, 0.36), (0.62, 0.34, 0.20)),
             "glow", "vee", lips=(0.50, 0.16, 0.18), brow=0.6, light=-0.4, iris=(0.14, 0.08, 0.05)), vigour=1.1,
    ),
    Speaker(
        "leo", "m", Voice("en-us", "m2", 52, 55, 170),
        Shape(jaw=1.03, cheeks=1.08, length=0.95, eyes_apart=1.02, eyes=0.95, nose_width=1.10, nose_length=0.96,
              mouth=1.0, lips=1.0, hairline=0.10, hair_top=0.88, hair_sides=0.18),
        Look((0.78, 0.58, 0.42), (0.10, 0.08, 0.08), (0.30, 0.48, 0.34), ((0.58, 0.58, 0.62), (0.34, 0.34, 0.40)),
             "stripes", "crew", brow=0.9, beard=0.2, glasses="round", mirrored=True, iris=(0.15, 0.10, 0.07)),
        zoom=1.0,
    ),
)  # fmt: skip

SENTENCES = (
    "The morning train was almost empty when we left.",
    "Please put the blue map beside the open window.",
    "My brother built a wooden boat for both of us.",
    "Five old friends met above the harbour to talk.",
    "We often walk along the river after lunch.",
    "Maybe the bus will arrive before the rain does.",
    "She bought warm bread and a bowl of plum soup.",
    "You should have heard what the owl said to us.",
    "Nobody knows how many people moved away.",
    "A small brown dog was following us all the way home.",
    "I would love to borrow your book about birds.",
    "Who will help me move the piano upstairs?",
    "They put five apples and a pear into the bag.",
    "Our father played the trumpet in a village band.",
    "The beach was warm and the waves were calm.",
    "Before we go, I must lock the garden gate.",
    "He was never above asking for good advice.",
    "Everybody wants a room with a view of the bay.",
    "Pour a cup of water over the purple flowers.",
    "Today the weather is much better than before.",
    "Bob asked me to show you the way to the farm.",
    "We may have problems with the old heating pump.",
    "The oranges from our market are big and sweet.",
    "Mother always told us a story about the moon.",
    "Have you ever watched a balloon float over town?",
    "Half of the museum will be open on Monday.",
    "It was a pleasure to meet all of your family.",
    "Paper boats move fast when the wind is up.",
    "The painter mixed yellow with a bit of white.",
    "I have a map, a lamp, and a bottle of water.",
    "Walk over the bridge and you will see our house.",
    "Most of the people here have lived abroad.",
    "Every evening my uncle plays the old guitar.",
    "You may pay for both of them at the front door.",
    "What a lovely view we have from above the valley!",
    "Some of the maps were made five hundred years ago.",
)


def cast(count: int, seed: int) -> list[Speaker]:
    """The first ``count`` speakers; beyond the twelve, new ones mixed from them by ``seed``.

    The twelve themselves differ between seeds only in how they move.
    """
    speakers = list(_CAST[:count])
    while len(speakers) < count:
        index = len(speakers)
        rng = np.random.default_rng([seed, 7919, index])
        base, other = (_CAST[i] for i in rng.choice(len(_CAST), 2, replace=False))
        mixed = {
            name: value + rng.uniform(0.2, 0.8) * (getattr(other.shape, name) - value) + rng.uniform(-0.02, 0.02)
            for name, value in vars(base.shape).items()
        }
        voice = replace(base.voice, pitch=round(base.voice.pitch + rng.uniform(-12, 12)), accent=other.voice.accent)
        look = replace(
            base.look, wear=other.look.wear, wall=other.look.wall, pattern=other.look.pattern,
            hair=other.look.hair, skin=other.look.skin, mirrored=not base.look.mirrored,
        )  # fmt: skip
        speakers.append(replace(base, name=f"guest{index + 1:03d}", voice=voice, shape=Shape(**mixed), look=look))
    return speakers
