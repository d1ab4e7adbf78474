import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from apdet.losses.sampling import sample_negatives

BACKGROUND = 3


def hardest_by_sorting(labels, hardness, ratio):
    """One image, with lists."""
    num_pos = sum(0 <= label < BACKGROUND for label in labels)
    negatives = [i for i, label in enumerate(labels) if label == BACKGROUND]
    negatives.sort(key=lambda i: -hardness[i])
    kept = negatives[: int(ratio * num_pos)]
    return [
        -1 if label == BACKGROUND and i not in kept else label for i, label in enumerate(labels)
    ]


@given(st.integers(0, 2**32), st.integers(0, 3), st.integers(0, 40), st.sampled_from([0.5, 1, 3]))
def test_each_image_keeps_its_hardest_negatives(seed, num_images, num_anchors, ratio):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, 2 * BACKGROUND, (num_images, num_anchors), generator=generator)
    labels.clamp_(max=BACKGROUND)
    hardness = torch.randn(num_images, num_anchors, generator=generator)
    kept = sample_negatives(labels, hardness, background=BACKGROUND, neg_pos_ratio=ratio)
    expected = [
        hardest_by_sorting(*image, ratio)
        for image in zip(labels.tolist(), hardness.tolist(), strict=True)
    ]
    assert kept.tolist() == expected


def test_the_ratio_must_be_positive():
    with pytest.raises(ValueError, match="neg_pos_ratio must be > 0, got 0"):
        sample_negatives(torch.zeros(1), torch.zeros(1), background=1, neg_pos_ratio=0)
