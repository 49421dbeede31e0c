"""The demo corpus: talking faces that the project makes itself, so that the main job runs anywhere.

A public-domain portrait (scikit-image's astronaut, NASA) becomes twelve speakers, espeak-ng gives them voices,
and mouth, lids and head follow what they say. Nobody in it exists or said any of it.
"""

from preprocessing.demo.corpus import make_demo_corpus

__all__ = ["make_demo_corpus"]
