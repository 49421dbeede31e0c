"""Equations (1) to (5), by hand."""

from __future__ import annotations

import torch
from contract import generator
from torch import Tensor, nn

from contracts.face import JAW_17, LIPS, POINTS_131, POSE_74
from systems.talkformer.attention import CrossAttention, LandmarkEmbedding, TalkFormer
from systems.talkformer.completion import LandmarkCompletion, landmark_loss
from systems.talkformer.denoiser import Denoiser
from systems.talkformer.diffusion import Clip, add_noise, make_scheduler, predict_noise, sample
from systems.talkformer.face_points import follow, join_points, parts_of, split_points
from systems.talkformer.latents import put_below


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=generator(seed, 0), dtype=torch.float64)


def awake(network: nn.Module) -> nn.Module:
    network.double().eval()
    with torch.no_grad():
        for number, parameter in enumerate(network.parameters()):
            parameter.copy_(0.4 * normal(*parameter.shape, seed=number))
    return network


def test_motion_is_aligned_as_in_3() -> None:
    block = awake(CrossAttention(channels=6, source=4, d=6, groups=2))
    hidden, e = normal(2, 6, 3, 2), normal(2, 5, 4, seed=1)
    key, value = block.project(e)
    found = block(hidden, key, value)
    normed = block.norm(hidden)
    for frame in range(2):
        for y in range(3):
            for x in range(2):
                q = block.query(normed[frame, :, y, x])
                weights = [torch.exp((q @ block.key(e[frame, i])) / 6**0.5) for i in range(5)]
                mixed = sum(w * block.value(e[frame, i]) for i, w in enumerate(weights)) / sum(weights)
                expected = block.out.weight[:, :, 0, 0] @ mixed + block.out.bias
                torch.testing.assert_close(found[frame, :, y, x], expected)


def test_features_are_warped_as_in_4_and_5() -> None:
    """S V_2 by hand; and it knows no places of the reference: the same features elsewhere give the same."""
    block = awake(TalkFormer(channels=4, width=0, groups=2, reference="warp", temporal=False))
    hidden, features = normal(6, 4, 2, 3), normal(2, 4, 2, 3, seed=1)
    found = block(hidden, block.keys(None, features, None), videos=2)
    attention = block.align_reference
    for frame in range(6):
        source = features[frame // 3].flatten(1).T  # [H W, D]: three frames share a reference
        q = attention.query(attention.norm(hidden)[frame].flatten(1).T)
        s = torch.softmax(q @ attention.key(source).T / 4**0.5, -1)
        warped = (s @ attention.value(source)).T.reshape(1, 4, 2, 3)
        torch.testing.assert_close(found[frame], hidden[frame] + attention.out(warped)[0])
    torch.testing.assert_close(s.sum(-1), torch.ones(6, dtype=torch.float64))
    turned = features.flatten(2)[..., torch.randperm(6, generator=generator(0, 1))].unflatten(2, (2, 3))
    torch.testing.assert_close(block(hidden, block.keys(None, turned, None), videos=2), found)


def test_it_begins_by_changing_nothing() -> None:
    block = TalkFormer(channels=4, width=3, groups=2, reference="warp", temporal=True)
    hidden, features, e = torch.randn(6, 4, 2, 2), torch.randn(2, 4, 2, 2), torch.randn(6, 131, 3)
    keys = block.keys(e, features, torch.randn(2, 2, 4, 2, 2))
    assert torch.equal(block(hidden, keys, videos=2), hidden)


def test_motion_frames_are_attended_to_in_time() -> None:
    block = awake(TalkFormer(channels=4, width=0, groups=2, reference="warp", temporal=True))
    hidden, before = normal(6, 4, 2, 2), normal(2, 2, 4, 2, 2, seed=1)
    features = normal(2, 4, 2, 2, seed=2)
    found = block(hidden, block.keys(None, features, before), videos=2)
    changed = before.clone()
    changed[1, 0, :, 1, 0] += 1 + torch.arange(4)
    other = block(hidden, block.keys(None, features, changed), videos=2)
    assert torch.equal(other[:3], found[:3]), "another video's"
    assert (other[3:] != found[3:]).any((0, 1))[1, 0]


def test_landmarks_become_as_many_embeddings() -> None:
    assert LandmarkEmbedding(8)(torch.rand(3, 131, 2)).shape == (3, 131, 8)


def test_sampling_with_the_true_noise_gives_z_0_back() -> None:
    net = Denoiser(latent=2, side=4, channels=(4, 4), layers=1, groups=2, width=4).double()
    z_0, noise, context = normal(3, 2, 2, 4), normal(3, 2, 2, 4, seed=1), normal(3, 2, 4, 4, seed=2)
    clip = Clip(context, normal(1, 2, 4, 4, seed=3), net.condition(normal(3, 131, 2), [None] * 2))
    alphas = make_scheduler().alphas_cumprod.double()

    def knowing(z_t: Tensor, t: Tensor, *_: object) -> Tensor:
        keep = alphas[t][:, None, None, None]
        return put_below(torch.zeros_like(z_t), (z_t[..., 2:, :] - keep.sqrt() * z_0) / (1 - keep).sqrt())

    net.forward = knowing
    for steps in (200, 7):
        torch.testing.assert_close(sample(net, clip, noise, steps), z_0, rtol=1e-4, atol=1e-4)


def test_noised_as_in_1() -> None:
    z_0, noise = normal(3, 2, 2, 4), normal(3, 2, 2, 4, seed=1)
    t = torch.tensor([0, 500, 999])
    keep = make_scheduler().alphas_cumprod.double()[t][:, None, None, None]
    torch.testing.assert_close(add_noise(z_0, noise, t), keep.sqrt() * z_0 + (1 - keep).sqrt() * noise)


def test_the_lead_is_the_best_guess_about_a_gaussian() -> None:
    """With z_0 = z_r + N(0, spread) the closed form's error is the one that theory gives, and a scaled one is worse."""
    torch.manual_seed(0)
    net = Denoiser(latent=1, side=2, channels=(4, 4), layers=1, groups=2, width=4, leads=True)
    net.spread.fill_(0.25)
    z_r, items = torch.full((1, 1, 2, 2), 2.0), 20_000
    clip = Clip(
        torch.zeros(items, 1, 2, 2), z_r.expand(items, -1, -1, -1), net.condition(torch.rand(1, 131, 2), [None] * 2)
    )
    net.forward = lambda z_t, *_: torch.zeros_like(z_t)
    z_0 = 2.0 + 0.5 * torch.randn(items, 1, 1, 2)
    noise, t = torch.randn(items, 1, 1, 2), torch.full((items,), 400)
    error = (predict_noise(net, clip, add_noise(z_0, noise, t), t) - noise).square().mean()
    keep = float(make_scheduler().alphas_cumprod[400])
    expected = keep * 0.25 / (keep * 0.25 + 1 - keep)
    assert abs(float(error) - expected) < 0.02 * expected


# ------------------------------------------------------------------ landmarks
def test_l_1_by_hand() -> None:
    lip, jaw = torch.zeros(1, 5, 40, 2), torch.zeros(1, 5, 17, 2)
    true_lip = lip.clone()
    true_lip[0, 2, 7, 1] = 0.4
    torch.testing.assert_close(landmark_loss(lip, jaw, true_lip, jaw + 0.1), torch.tensor(0.4 / 400 + 0.1))


def test_parts_make_the_whole() -> None:
    landmarks = torch.rand(2, 3, 478, 2)
    face = split_points(landmarks)
    assert torch.equal(face.full, landmarks[..., list(POINTS_131), :])
    assert torch.equal(join_points(face.lip, face.jaw, face.pose), face.full)
    for part, points in zip(parts_of(face.full), (LIPS, JAW_17, POSE_74)):
        assert torch.equal(part, landmarks[..., list(points), :])
    assert face.full.shape[-2] == len(LIPS) + len(JAW_17) + len(POSE_74) == 131


def test_points_follow_a_turn_a_shift_and_a_size() -> None:
    start, lips, angle = torch.rand(74, 2), torch.rand(40, 2), torch.tensor(0.4)
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])

    def moved(points: Tensor) -> Tensor:
        return 1.3 * points @ turn.T + torch.tensor([0.2, -0.1])

    torch.testing.assert_close(follow(lips, start, moved(start)), moved(lips))


def test_completion_begins_with_the_led_references_and_hears_its_own_frames() -> None:
    torch.manual_seed(0)
    net = LandmarkCompletion(width=16, layers=1, heads=2, feed_forward=32, context=2, relative=True).eval()
    references = torch.rand(1, 5, 131, 2)
    lip, jaw, pose = parts_of(references.mean(1, keepdim=True))
    audio = 0.1 * torch.randn(1, 640 * 9)
    with torch.no_grad():
        found = net(pose.expand(-1, 5, -1, -1) + 0.1, references, audio)
    torch.testing.assert_close(found[0], (lip + 0.1).expand(-1, 5, -1, -1))
    torch.testing.assert_close(found[1], (jaw + 0.1).expand(-1, 5, -1, -1))
    windows = net.windows(audio)
    assert windows.shape == (1, 5, 80, 20)
    louder = audio.clone()
    louder[:, : 640 * 1] *= 5  # the first frame of context: heard about the first frame alone
    changed = (net.windows(louder) != windows).any((0, 2, 3))
    assert changed.tolist() == [True, True, False, False, False] or changed.tolist() == [True] + [False] * 4
