import hashlib

import numpy as np
import pytest

from lrfr.config import Faces
from lrfr.errors import UserError
from lrfr.sources import registry as sources
from lrfr.sources.manifests import MANIFESTS
from lrfr.sources.registry import SOURCES, read_bytes, read_face
from tests.data.small_lfw import invented


class Held(dict):
    read = dict.__getitem__


def test_every_source_of_the_parameters_is_known():
    assert list(SOURCES) == list(Faces.model_fields["source"].annotation.__args__)
    for name, source in SOURCES.items():
        aligned = name == "recordio"  # the user's manifest lies elsewhere, and nothing is detected
        assert (source.points is not None) == aligned and (source.manifest.parent == MANIFESTS) != aligned
        left, top, right, bottom = source.fallback
        assert source.manifest.name == f"{name}.csv" and 0 <= left < right and 0 <= top < bottom


def test_bytes_are_checked_before_they_are_decoded(monkeypatch):
    data = invented(0)
    photographs, sha256 = Held({"a.jpg": data, "b.jpg": data[:-1]}), hashlib.sha256(data).hexdigest()
    assert read_bytes(photographs, "a.jpg", sha256) == data
    assert np.asarray(read_face(photographs, "a.jpg", sha256)).shape == (60, 60, 3)
    monkeypatch.setattr(sources, "read_image", lambda *_: pytest.fail("decoded"))
    with pytest.raises(UserError, match=r"^b\.jpg: its bytes differ from the manifest \(sha256\); [^.]*\.$"):
        read_face(photographs, "b.jpg", sha256)
