"""InceptionResnetV1 behind the teachers' contract, with random weights."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from lrfr.errors import UserError
from lrfr.models import inception
from lrfr.models.inception import InceptionTeacher, fetch


@pytest.fixture(scope="module")
def teacher() -> InceptionTeacher:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return InceptionTeacher().eval()


def chips(side: int) -> torch.Tensor:
    return 255 * torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def test_unit_embeddings_are_the_librarys_own_output(teacher: InceptionTeacher) -> None:
    x = chips(112)
    with torch.inference_mode():
        features, expected = teacher(x), teacher.net((x - 127.5) / 128)
    assert torch.allclose(torch.nn.functional.normalize(features.embedding), expected, rtol=0, atol=1e-6)
    assert not torch.allclose(features.embedding, expected)  # it is handed out before normalisation


def test_the_three_steps_are_forward(teacher: InceptionTeacher) -> None:
    x = chips(96)
    with torch.inference_mode():
        features, maps = teacher(x), teacher.prefix(x)
        last, pooled = teacher.pooled(maps[-1])
        embedding = teacher.head(pooled)
    assert all(
        torch.equal(a, b) for a, b in zip((*maps, last, embedding), (*features.maps, features.embedding), strict=True)
    )


@pytest.mark.parametrize("side", [inception.SMALLEST, 96, 112, 160])
def test_sides_that_work(teacher: InceptionTeacher, side: int) -> None:
    with torch.inference_mode():
        assert torch.isfinite(teacher(chips(side)).embedding).all()


@pytest.mark.parametrize("side", [64, inception.SMALLEST - 1])
def test_too_small_a_chip_is_a_user_error(teacher: InceptionTeacher, side: int) -> None:
    with pytest.raises(UserError, match=f"{side} x {side}"):
        teacher(chips(side))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return tmp_path / "checkpoints"


def test_a_file_of_another_hash_is_refused(hub: Path) -> None:
    hub.mkdir()
    (hub / inception.PUBLISHED["vggface2"][0]).write_bytes(b"not the weights")
    with pytest.raises(UserError, match="not the published file"):
        fetch("vggface2")


def test_a_download_happens_once_and_is_remembered(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def download(url: str, path: str) -> None:
        calls.append(url)
        Path(path).write_bytes(b"weights")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    path = fetch("casia-webface")
    assert fetch("casia-webface") == path == hub / inception.PUBLISHED["casia-webface"][0]
    assert calls == [inception.RELEASE + path.name]
    assert path.with_name(f"{path.name}.sha256").read_text() == hashlib.sha256(b"weights").hexdigest()
    path.write_bytes(b"changed")
    with pytest.raises(UserError, match="not the published file"):
        fetch("casia-webface")


def test_no_network_is_a_user_error(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(url: str, path: str) -> None:
        raise OSError("no route")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(UserError, match="cannot be downloaded.*give its path"):
        fetch("vggface2")
