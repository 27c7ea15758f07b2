"""Operations on latents, against their definitions."""

import math

import pytest
import torch

from data_pipeline.batch import VectorBatch
from data_pipeline.config import BadInput
from pretrain import config
from pretrain.experiment import Experiment
from pretrain.latent_operations import attribute_vector, interpolate, reconstruct
from pretrain.models.flow.flow import FlowConfig


def test_straight_interpolation() -> None:
    a, b = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([3.0, -4.0, 2.0])
    goal = torch.tensor([[1.0, 0, 2], [1.5, -1, 2], [2, -2, 2], [2.5, -3, 2], [3, -4, 2]])
    assert torch.allclose(interpolate(a, b, 5), goal)


def test_spherical_interpolation_turns_evenly_and_keeps_lengths() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 6, dtype=torch.float64)
    b = b * a.norm() / b.norm()
    path = interpolate(a, b, 9, "spherical")
    assert torch.allclose(path[[0, -1]], torch.stack([a, b]), atol=1e-12)
    assert torch.allclose(path.norm(dim=1), a.norm().expand(9), atol=1e-12)
    turns = torch.cosine_similarity(path[1:], path[:-1]).arccos()
    assert torch.allclose(turns, turns[:1].expand(8), atol=1e-9)
    assert float(turns.sum()) == pytest.approx(float(torch.cosine_similarity(a, b, dim=0).arccos()), abs=1e-9)
    assert float((interpolate(a, b, 9).norm(dim=1) - a.norm()).abs().max()) > 0.1, "a straight path is shorter inside"


def test_spherical_interpolation_of_one_direction_is_straight_and_of_two_opposite_ones_refused() -> None:
    a = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert torch.allclose(interpolate(a, 3 * a, 3, "spherical"), torch.stack([a, 2 * a, 3 * a]))
    with pytest.raises(BadInput, match="opposite latents"):
        interpolate(a, -a, 3, "spherical")


@pytest.mark.parametrize(("a", "b", "steps"), [((2,), (2,), 1), ((2,), (3,), 4), ((2, 2), (2, 2), 4)])
def test_what_cannot_be_interpolated(a: tuple[int, ...], b: tuple[int, ...], steps: int) -> None:
    with pytest.raises(BadInput, match="need 2, and two equal vectors"):
        interpolate(torch.zeros(a), torch.zeros(b), steps)


def test_an_attribute_vector_is_what_was_added() -> None:
    """To a third of the rows, of which noise hides it."""
    torch.manual_seed(0)
    latents, has, added = torch.randn(30_000, 4), torch.arange(30_000) % 3 == 0, torch.tensor([1.0, -2, 0, 0.5])
    found = attribute_vector(latents + has[:, None] * added, has)
    error = 4 * math.sqrt(1 / 10_000 + 1 / 20_000)
    assert float((found - added).abs().max()) < error
    assert torch.equal(found, attribute_vector(latents + has[:, None] * added, has.long()))
    for none in (torch.zeros(30_000), torch.ones(30_000)):
        with pytest.raises(BadInput, match="must be some, and not all"):
            attribute_vector(latents, none)


def test_reconstruction_goes_through_the_latents() -> None:
    bijections = {"kind": "maf", "num_layers": 2, "hidden_widths": [5]}
    model = FlowConfig.model_validate({"kind": "flow", "row_shape": [3], "bijections": bijections}).build()
    batch = VectorBatch(torch.randn(4, 3), torch.zeros(4, dtype=torch.int64), torch.arange(4))
    assert torch.allclose(reconstruct(model, batch), batch.values, atol=1e-5)
    gan = config.load(Experiment, config.recipe_path("tiny_gan")).model.build()
    with pytest.raises(BadInput, match="GAN does not both encode and decode"):
        reconstruct(gan, batch)
