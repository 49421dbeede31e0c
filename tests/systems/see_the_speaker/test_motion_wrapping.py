import torch
from torch import nn

from systems.see_the_speaker.image_autoencoder import ImageDecoder, ImageEncoder
from systems.see_the_speaker.lip_refiner import LipGuider, LipRefiner
from systems.see_the_speaker.motion_wrapper import CodeEncoder, MotionWrapper
from systems.see_the_speaker.motion_wrapping import decode, read_source, wrap
from systems.see_the_speaker.warp import resize, warp


def make_nets() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "image_encoder": ImageEncoder((4, 6, 8)),
            "identity_encoder": CodeEncoder(8, 4, 8, 16, 6),
            "motion_encoder": CodeEncoder(8, 4, 8, 16, 5),
            "motion_wrapper": MotionWrapper(6, 5, 8, 16, (8, 8, 8, 8)),
            "lip_guider": LipGuider(6, 5, 16, 4, 6),
            "lip_refiner": LipRefiner(8, 6, 4, 8),
            "image_decoder": ImageDecoder((4, 6, 8), True),
        }
    )


def test_zero_flow_is_the_picture_itself() -> None:
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(warp(x, torch.zeros(2, 2, 8, 8)), x, atol=1e-5, rtol=1e-5)


def test_flow_reads_from_where_it_points() -> None:
    x = torch.rand(1, 1, 16, 16)
    flow = torch.zeros(1, 2, 16, 16)
    flow[:, 0] = 2 * 3 / 16  # three pixels to the right, in half sides
    torch.testing.assert_close(warp(x, flow)[..., :13], x[..., 3:], atol=1e-5, rtol=1e-5)


def test_untrained_it_copies_the_source() -> None:
    nets, image = make_nets(), torch.rand(2, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        source = read_source(nets, image)
        wrapped = wrap(nets, source, source.z_m, nets["lip_guider"].mean_lips.expand(2, -1, -1))  # its own lips
        torch.testing.assert_close(decode(nets, wrapped), image, atol=1e-4, rtol=1e-4)
        assert torch.equal(wrapped.z_wr, wrapped.z_w)


def test_the_refiner_acts_in_the_lip_region_and_where_it_is_let() -> None:
    nets, image = make_nets(), torch.rand(1, 3, 64, 64) * 2 - 1
    nn.init.normal_(nets["lip_refiner"].flow_out.weight)
    with torch.no_grad():
        source = read_source(nets, image)
        frame = torch.tensor([[0.5, 0.5, -1.4, 0.0]])
        nets["lip_guider"].mean_frame.copy_(frame[0])
        lips = torch.cat([torch.linspace(-0.3, 0.3, 40)[:, None], torch.full((40, 1), 0.8)], 1)[None]
        off, on = (wrap(nets, source, source.z_m, lips, torch.tensor([w])) for w in (0.0, 1.0))
    moved = (on.flow - off.flow).abs().sum(1)[0]
    assert moved[:8].max() < 1e-3 * moved.max(), "the forehead moved with the lips"
    assert moved.max() > 0
    assert torch.equal(off.z_wr, off.z_w)


def test_resizing_keeps_the_mean() -> None:
    x = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(resize(x, 16).mean(), x.mean(), rtol=1e-2, atol=0)
