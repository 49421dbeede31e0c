from typing import ClassVar

import pytest
import torch
from contract import TrainedContract, generator, train_step
from diffusers import AutoencoderKL, UNet2DModel
from toy_batch import make_batch

from contracts.errors import Misuse
from systems.talkformer.autoencoder import Autoencoder
from systems.talkformer.latents import lower_half, mask_lower, put_below

SMALL = {"size": 16, "channels": (8, 16), "groups": 4}


class TestAutoencoder(TrainedContract):
    system = "talkformer"
    stage = Autoencoder
    changes: ClassVar = {"size": 32, "colours": 0.0}
    items = 2
    paper_parameters = 55.310


def test_the_linear_ways_start_above_bicubic() -> None:
    """Soft blobs of few colours, none of them seen before."""
    torch.manual_seed(0)
    rough = torch.rand(80, 3, 9, 9) * 2 - 1
    pictures = torch.nn.functional.interpolate(rough, size=32, mode="bicubic").clamp(-1, 1)
    stage = Autoencoder.preset("tiny", size=32)
    model = stage.build_model({})
    stage.prepare(model, [{"frames": pictures[:64, None]}])
    with torch.no_grad():
        found = stage.validate(model, {"frames": pictures[64:, None]}, torch.Generator())
    assert (found["psnr"] > found["psnr_bicubic"]).all()


def test_the_paper_s_latent_is_64_of_256() -> None:
    with torch.device("meta"):
        network = Autoencoder.preset("paper").build_model({})["autoencoder"]
        assert network.encode(torch.zeros(1, 2, 3, 256, 256)).shape == (1, 2, 3, 64, 64)
    assert network.factor == 4


def test_codes_learn_too() -> None:
    stage = Autoencoder.preset("tiny", kind="vq", codes=16, weight_code=1.0, **SMALL)
    torch.manual_seed(0)
    model, batch = stage.build_model({}), make_batch(stage.view, 2)
    optimizers = stage.optimizers(model)
    losses = [train_step(stage, model, optimizers, batch, step)[0] for step in range(10)]
    assert losses[-1] < losses[0]
    assert model["autoencoder"].network.quantize.embedding.weight.grad.abs().sum() > 0


def test_published_weights_are_taken_as_they_are(tmp_path) -> None:
    torch.manual_seed(3)
    published = AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=5,
    )
    published.save_pretrained(tmp_path / "published")
    stage = Autoencoder.preset("tiny", weights=str(tmp_path / "published"), size=16)
    assert not stage.stand_ins
    model = stage.build_model({}).eval()
    stage.export(model, tmp_path / "artifact")
    loaded = stage.load(tmp_path / "artifact")["autoencoder"]
    image = make_batch(stage.view, 2)["frames"]
    z = published.eval().encode(image[:, 0]).latent_dist.mode()
    assert (loaded.factor, loaded.channels) == (2, 5)
    assert torch.equal(loaded.encode(image)[:, 0], z)
    assert torch.equal(loaded.decode(z[:, None])[:, 0], published.decode(z).sample)


def test_other_weights_are_refused(tmp_path) -> None:
    with pytest.raises(Misuse, match="holds no VQModel or AutoencoderKL"):
        Autoencoder.preset("tiny", weights=str(tmp_path)).build_model({})
    UNet2DModel(
        block_out_channels=(8, 8),
        down_block_types=("DownBlock2D",) * 2,
        up_block_types=("UpBlock2D",) * 2,
        norm_num_groups=4,
    ).save_pretrained(tmp_path)
    with pytest.raises(Misuse, match="holds no VQModel or AutoencoderKL"):
        Autoencoder.preset("tiny", weights=str(tmp_path)).build_model({})


def test_halves() -> None:
    image = torch.randn(2, 3, 8, 6, generator=generator(0, 0))
    assert torch.equal(put_below(image, lower_half(image)), image)
    assert torch.equal(mask_lower(image)[..., :4, :], image[..., :4, :])
    assert not lower_half(mask_lower(image)).any()
