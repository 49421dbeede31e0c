import numpy as np
import pytest
import torch

from contracts.errors import Misuse
from contracts.speech import voice_level
from systems.see_the_speaker.lip_predictor import LipPredictor
from systems.see_the_speaker.speech_features import SpeechFeatures

SMALL = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
    "conv_dim": (8,) * 7, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip


@pytest.mark.parametrize("kind", ["mel", "hubert", "wav2vec2"])
@pytest.mark.parametrize("frames", [1, 7, 125])
def test_one_vector_per_frame(kind: str, frames: int) -> None:
    features = SpeechFeatures(kind, None if kind == "mel" else SMALL).eval()
    sound = torch.randn(2, 640 * frames, generator=torch.Generator().manual_seed(0)) * 0.1
    with torch.no_grad():
        out = features(sound)
        assert out.shape == (2, frames, features.width)
        torch.testing.assert_close(out[1:], features(sound[1:]), atol=1e-5, rtol=1e-5)


def test_pairs_of_vectors_become_frames() -> None:
    torch.manual_seed(0)
    mean, concat = (SpeechFeatures("hubert", SMALL, pair).eval() for pair in ("mean", "concat"))
    concat.load_state_dict(mean.state_dict())
    sound = torch.randn(1, 6400)
    with torch.no_grad():
        first, second = concat(sound).chunk(2, -1)
        torch.testing.assert_close(mean(sound), (first + second) / 2)


def test_what_is_measured_becomes_zero_mean_and_unit_deviation() -> None:
    sound = torch.randn(2, 64_000, generator=torch.Generator().manual_seed(0)) * 0.1
    features = SpeechFeatures("mel")
    features.measure([sound])
    out = features(sound).unflatten(-1, (4, 80))
    torch.testing.assert_close(out.mean((0, 1, 2)), torch.zeros(80), atol=1e-3, rtol=0)
    torch.testing.assert_close(out.flatten(0, 2).std(0), torch.ones(80), atol=1e-3, rtol=0)


def test_a_folder_without_weights_is_refused(tmp_path: object) -> None:
    with pytest.raises(Misuse, match="speech_weights"):
        SpeechFeatures("hubert", SMALL).load_published(str(tmp_path))


def test_published_weights_are_taken_and_fixed(tmp_path: object) -> None:
    torch.manual_seed(0)
    published = SpeechFeatures("hubert", SMALL)
    published.network.save_pretrained(str(tmp_path), safe_serialization=True)
    torch.manual_seed(1)
    features = SpeechFeatures("hubert", SMALL)
    features.load_published(str(tmp_path))
    assert not any(p.requires_grad for p in features.network.parameters())
    for name, value in published.network.state_dict().items():
        assert torch.equal(features.network.state_dict()[name], value), name


def test_lips_hear_their_context_and_no_more() -> None:
    torch.manual_seed(0)
    predictor = LipPredictor(hidden=8, context=6).eval()
    torch.nn.init.normal_(predictor.out.weight)
    sound = torch.randn(1, 640 * 20) * 0.1
    changed = sound.clone()
    changed[:, 640 * 14 :] *= -0.5  # frame 13 of the sound is the last that frame 1 of the result hears
    with torch.no_grad():
        before, after = (predictor(heard, torch.full((1, 80), -6.0)) for heard in (sound, changed))
    assert before.shape == (1, 8, 40, 2)
    torch.testing.assert_close(before[:, 0], after[:, 0])
    assert (before[:, 7] - after[:, 7]).abs().max() > 1e-3


def test_a_microphone_that_is_louder_changes_no_lips() -> None:
    torch.manual_seed(0)
    predictor = LipPredictor(hidden=8, context=6).eval()
    torch.nn.init.normal_(predictor.out.weight)
    sound = np.random.default_rng(0).normal(0, 0.05, 640 * 20).astype(np.float32)
    with torch.no_grad():
        near, far = (
            predictor(torch.from_numpy(heard)[None], torch.from_numpy(voice_level(heard))[None])
            for heard in (sound, sound / 4)
        )
    torch.testing.assert_close(near, far, atol=1e-4, rtol=1e-4)


def test_a_voice_is_moved_by_whole_bands() -> None:
    features = SpeechFeatures("mel")
    sound = torch.randn(2, 640 * 3) * 0.1
    still, moved = features(sound), features(sound, bands=torch.tensor([0, 2]))
    assert torch.equal(still[0], moved[0])
    bands = [x[1].reshape(-1, 80) for x in (still, moved)]
    assert torch.equal(bands[1][:, 2:], bands[0][:, :-2])


def test_nothing_heard_counts_for_no_voice() -> None:
    sound = np.random.default_rng(0).normal(0, 0.05, 640 * 50).astype(np.float32)
    quiet = np.concatenate([sound, np.zeros(640 * 100, np.float32)])
    np.testing.assert_allclose(voice_level(sound), voice_level(quiet), atol=0.02)
    np.testing.assert_allclose(voice_level(np.zeros(640, np.float32)), np.log(1e-5), rtol=1e-6)
