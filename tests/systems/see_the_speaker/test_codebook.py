import torch

from systems.common.linear import least_squares
from systems.see_the_speaker.codebook import Codebook, HighResolutionDecoder
from systems.see_the_speaker.hr_codebook import perplexity


def make_codebook() -> Codebook:
    codebook = Codebook(count=3, width=2, commitment=0.25)
    with torch.no_grad():
        codebook.codes.copy_(torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0]]))
    return codebook


def test_the_nearest_code_by_hand() -> None:
    z = torch.tensor([[[[0.2, 0.9]], [[0.1, 1.6]]]])  # two places: (0.2, 0.1) and (0.9, 1.6)
    codebook = make_codebook()
    z_q, index, l_code = codebook(z)
    assert index.tolist() == [[[0, 2]]]
    torch.testing.assert_close(z_q, torch.tensor([[[[0.0, 0.0]], [[0.0, 2.0]]]]))
    # squared distances 0.04 + 0.01 and 0.81 + 0.16 over four numbers, once for each side of eq. (19)
    torch.testing.assert_close(l_code, torch.tensor((0.05 + 0.97) / 4 * 1.25))


def test_gradients_pass_straight_through_and_codes_learn_from_l_code_alone() -> None:
    codebook, z = make_codebook(), torch.tensor([[[[0.2]], [[0.1]]]], requires_grad=True)
    z_q, _, l_code = codebook(z)
    (z_q * torch.tensor([3.0, 5.0]).view(1, 2, 1, 1)).sum().backward(retain_graph=True)
    assert z.grad is not None
    assert z.grad.flatten().tolist() == [3.0, 5.0]
    assert codebook.codes.grad is None
    l_code.backward()
    assert codebook.codes.grad is not None
    assert codebook.codes.grad[0].abs().sum() > 0
    assert codebook.codes.grad[1:].abs().sum() == 0


def test_codes_start_where_the_data_is() -> None:
    generator = torch.Generator().manual_seed(0)
    places = torch.tensor([[5.0, -3.0], [-4.0, 2.0], [0.0, 9.0], [7.0, 7.0]])
    vectors = places.repeat_interleave(50, 0) + 0.01 * torch.randn(200, 2, generator=generator)
    codebook = Codebook(count=4, width=2)
    codebook.start_from(vectors, vectors)
    z_q, index, l_code = codebook(vectors.T[None, :, :, None])
    assert len(index.unique()) == 4
    assert l_code < 1e-3
    assert z_q.shape == (1, 2, 200, 1)


def test_near_codes_are_alike_patches() -> None:
    """A dimension that shows nothing, however wide it spreads, does not decide which code is nearest."""
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(400, 2, generator=generator) * torch.tensor([1.0, 50.0])
    codebook = Codebook(count=8, width=2)
    codebook.start_from(vectors, vectors[:, :1].expand(-1, 12))
    z_q = codebook(vectors.T[None, :, :, None])[0][0, :, :, 0].T
    weight, bias = least_squares(z_q, vectors[:, :1])
    assert (z_q @ weight + bias - vectors[:, :1]).square().mean() < 0.1


def test_patches_start_from_the_pictures() -> None:
    generator = torch.Generator().manual_seed(0)
    z_q = torch.randn(6, 4, 8, 8, generator=generator)
    decoder = HighResolutionDecoder(width=4, widths=(8, 6, 4), joined=(), copy_image=True, equalised=True)
    true = torch.nn.Conv2d(4, 48, 3, padding=1, padding_mode="replicate")
    pictures = torch.nn.functional.pixel_shuffle(true(z_q), 4).detach()
    decoder.start_from(z_q, pictures)
    drawn = decoder(z_q, [], torch.zeros(6, 3, 32, 32), torch.zeros(6))
    torch.testing.assert_close(drawn, pictures, atol=0.02, rtol=0)


def test_the_weight_shuts_the_maps_out() -> None:
    torch.manual_seed(0)
    decoder = HighResolutionDecoder(width=4, widths=(8, 6, 4), joined=(5,), copy_image=True, equalised=True)
    for layer in (decoder.mixers[0], decoder.paint):
        torch.nn.init.normal_(layer.weight)
    z_q, base = torch.randn(2, 4, 4, 4), torch.rand(2, 3, 16, 16)
    w = torch.tensor([0.0, 1.0])
    one, other = (decoder(z_q, [torch.randn(2, 5, 8, 8)], base, w) for _ in range(2))
    assert one.shape == (2, 3, 16, 16)
    assert torch.equal(one[0], other[0])
    assert not torch.equal(one[1], other[1])


def test_measures_by_hand() -> None:
    torch.testing.assert_close(perplexity(torch.tensor([0, 1, 2, 3]), 8), torch.tensor(4.0))
    torch.testing.assert_close(perplexity(torch.tensor([5, 5, 5]), 8), torch.tensor(1.0))
