from __future__ import annotations

import torch

from lrfr.methods.common import attention_map, embedding_projector, entries, ramp
from lrfr.models.features import Shapes


def test_ramp_rises_linearly_then_stays() -> None:
    assert [ramp(progress, 0.5) for progress in (0.0, 0.25, 0.5, 1.0)] == [0.0, 0.5, 1.0, 1.0]
    assert ramp(0.0, 0.0) == 1.0


def test_attention_map_is_the_mean_square_over_channels() -> None:
    features = torch.tensor([3.0, -4.0]).reshape(1, 2, 1, 1).expand(1, 2, 2, 3)
    assert torch.equal(attention_map(features), torch.full((1, 1, 2, 3), 12.5))


def test_entries_are_all_of_a_face_and_cost_no_copy_of_channels_last() -> None:
    maps = torch.arange(48.0).reshape(2, 3, 4, 2)
    found = entries(maps)
    assert found.shape == (2, 24) and found[1, :4].tolist() == [24, 32, 40, 25]  # channels run fastest
    last = maps.to(memory_format=torch.channels_last)
    assert torch.equal(entries(last), found) and entries(last).data_ptr() == last.data_ptr()


def test_projector_only_where_dimensions_differ() -> None:
    shapes = Shapes(((4, 8),), ((4, 8),), 6, 6, 3, 10)
    embedding = torch.ones(2, 6)
    assert embedding_projector(shapes)(embedding) is embedding
    assert embedding_projector(shapes._replace(teacher_embedding=9))(embedding).shape == (2, 9)
