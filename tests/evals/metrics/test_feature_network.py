"""What the feature networks see, on scikit-learn's digits, and that they are the same wherever they should be."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from data_pipeline.config import BadInput
from data_pipeline.digits import DigitsConfig
from evals.metrics.feature_network import (
    FeatureNetwork,
    features_of,
    load_feature_network,
    random_feature_network,
    train_feature_network,
)
from evals.metrics.frechet import frechet_distance


def digits(split: str) -> tuple[Tensor, Tensor]:
    vectors = DigitsConfig(kind="digits").vectors(split)
    return torch.from_numpy(vectors.values).reshape(-1, 1, 8, 8), torch.from_numpy(vectors.labels)


def halves() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The training digits in two halves that were shuffled together."""
    images, labels = digits("train")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    half = len(order) // 2
    first, second = order[:half], order[half:]
    return images[first], labels[first], images[second], labels[second]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_trained_network_sees_classes_and_a_random_one_pixels(seed: int) -> None:
    """Half of the classes missing is worse than noise through which the digits can be read."""
    reference, reference_labels, held_out, labels = halves()
    noise = 0.3 * torch.randn(held_out.shape, generator=torch.Generator().manual_seed(seed))

    def distances(features: Callable[[Tensor], Tensor]) -> list[float]:
        return [
            frechet_distance(features(reference), features(images), features="", protocol={}).value
            for images in (held_out, held_out + noise, held_out[labels > 4])
        ]

    def by(network: FeatureNetwork) -> Callable[[Tensor], Tensor]:
        return lambda images: torch.cat(list(features_of(network, images)))

    trained = train_feature_network(reference, reference_labels, seed=seed, epochs=15)
    clean, noisy, lost = distances(by(trained))
    assert clean < noisy < lost
    for features in (by(random_feature_network(1, seed=seed)), lambda images: images.flatten(1)):
        clean, noisy, lost = distances(features)
        assert clean < lost < noisy


def test_training_is_a_function_of_data_and_seed() -> None:
    images, labels = (part[:200] for part in digits("train"))
    before = torch.random.get_rng_state()
    once, again = (train_feature_network(images, labels, seed=4, epochs=2) for _ in range(2))
    assert once.fingerprint == again.fingerprint
    assert train_feature_network(images, labels, seed=5, epochs=2).fingerprint != once.fingerprint
    assert train_feature_network(images, labels, seed=4, epochs=1).fingerprint != once.fingerprint
    assert train_feature_network(images.flip(0), labels, seed=4, epochs=2).fingerprint != once.fingerprint
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_fingerprint_sees_one_bit_of_one_weight() -> None:
    network = random_feature_network(3, seed=0)
    fingerprint = network.fingerprint
    assert random_feature_network(3, seed=0).fingerprint == fingerprint
    assert random_feature_network(3, seed=1).fingerprint != fingerprint
    with torch.no_grad():
        bias = network.dense.bias
        bias[0] = torch.nextafter(bias[0], torch.tensor(9.0))
    assert network.fingerprint != fingerprint


def test_a_network_comes_back_from_its_file(tmp_path: Path) -> None:
    network = random_feature_network(3, seed=0)
    network.save(tmp_path / "features.safetensors")
    loaded = load_feature_network(tmp_path / "features.safetensors")
    images = torch.rand(5, 3, 9, 7)
    assert loaded.fingerprint == network.fingerprint
    assert torch.equal(next(features_of(loaded, images)), next(features_of(network, images)))


def test_bad_images() -> None:
    network = random_feature_network(3, seed=0)
    with pytest.raises(BadInput, match=r"must be \[rows, 3, height, width\]"):
        next(features_of(network, torch.rand(5, 1, 8, 8)))
    with pytest.raises(BadInput, match=r"must be \[N, C, H, W\]"):
        train_feature_network(torch.rand(5, 64), torch.zeros(5).long(), seed=0)
    with pytest.raises(BadInput, match="not negative"):
        train_feature_network(torch.rand(2, 1, 8, 8), torch.tensor([0, -1]), seed=0)
