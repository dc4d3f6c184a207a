"""EdgeFace: the crop is ArcFace's, the network timm's; the published weights where somebody has them."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from lrfr.data.align import TEMPLATE, similarity
from lrfr.errors import UserError
from lrfr.models import edgeface
from lrfr.models.teachers import TEACHERS, build_teacher

ARCFACE = [(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)]
FOLDER = Path(os.environ.get("LRFR_EDGEFACE", Path(__file__).parents[3] / "shared" / "models" / "edgeface"))


def test_the_window_is_the_similarity_between_the_two_templates():
    matrix = similarity(np.array(ARCFACE), TEMPLATE)  # from ArcFace's crop to our chip, pixel centres at integers
    scale = np.hypot(matrix[0, 0], matrix[1, 0])
    middle = matrix @ [55.5, 55.5, 1] + 0.5  # of the crop, where its turn moves nothing; edges at integers
    left, top, side = edgeface.WINDOW
    assert side == pytest.approx(112 * scale, abs=0.01)
    assert (left + side / 2, top + side / 2) == pytest.approx(tuple(middle), abs=0.01)


@pytest.mark.parametrize("name", edgeface.NETWORKS)
def test_shapes_and_parameters_are_as_published(name):
    net = build_teacher(name, "random")
    features = net(torch.rand(2, 3, 112, 112) * 255)
    spec = TEACHERS[name]
    assert [tuple(stage.shape[1:]) for stage in features.maps] == [
        (c, s, s) for c, s in zip(spec.channels, spec.sides, strict=True)
    ]
    assert features.embedding.shape == (2, 512)
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(
        {"edgeface_xs": 2.24, "edgeface_xxs": 1.24}[name], abs=0.01
    )


def test_the_three_steps_are_timms_forward():
    net = build_teacher("edgeface_xxs", "random")
    faces = torch.rand(2, 3, 112, 112, generator=torch.Generator().manual_seed(0)) * 255
    torch.testing.assert_close(net(faces).embedding, net.net((faces - 127.5) / 127.5))


def test_it_has_no_gates():
    with pytest.raises(UserError, match="no squeeze-excitation"):
        build_teacher("edgeface_xs", "random", 16)


def test_a_file_that_is_not_the_checkpoint_is_refused(tmp_path):
    path = tmp_path / "edgeface_xs_q.pt"
    path.write_bytes(b"nothing")
    with pytest.raises(UserError, match="SHA-256"):
        build_teacher("edgeface_xs", str(path))


@pytest.mark.skipif(not (FOLDER / "edgeface_xs_q.pt").is_file(), reason="the published weights are not here")
@pytest.mark.parametrize("name", edgeface.NETWORKS)
def test_the_published_weights_fill_the_network(name):
    state = edgeface.read_checkpoint(FOLDER / f"{name}_q.pt", edgeface.NETWORKS[name][1])
    net = build_teacher(name, str(FOLDER / f"{name}_q.pt"))
    assert state.keys() == net.net.state_dict().keys()
    matrix = state["head.fc.weight"].ravel() if state["head.fc.weight"].ndim == 2 else None
    assert matrix is None or len(torch.unique(matrix)) <= 256  # eight bits, one scale
    assert torch.isfinite(net(torch.full((1, 3, 112, 112), 128.0)).embedding).all()
