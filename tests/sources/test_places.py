"""Every source by its name, and where a user keeps a set."""

from lrfr.config import Faces
from lrfr.data.photographs import MANIFESTS
from lrfr.sources import SOURCES
from lrfr.sources.places import Place
from lrfr.studies import SETS
from tests.gate.refusals import refusal


def test_every_source_of_the_parameters_is_known():
    assert list(SOURCES) == list(Faces.model_fields["source"].annotation.__args__)
    assert SETS.keys() <= SOURCES.keys()
    for name, source in SOURCES.items():
        aligned = name == "recordio"  # the user's manifest lies elsewhere, and nothing is detected
        assert (source.points is not None) == aligned and (source.manifest.parent == MANIFESTS) != aligned
        left, top, right, bottom = source.fallback or (0, 0, 1, 1)
        assert source.manifest.name == f"{name}.csv" and 0 <= left < right and 0 <= top < bottom


def test_a_place_is_in_the_variable_or_in_the_file(tmp_path, monkeypatch):
    place = Place("set-some", "some", "lrfr study STUDY --some DIR")
    monkeypatch.setenv("LRFR_CACHE", str(tmp_path))
    monkeypatch.delenv("LRFR_SET_SOME_ROOT", raising=False)
    assert "some: it is not known where it is; run `lrfr study STUDY --some DIR` or set LRFR_SET_SOME_ROOT" in refusal(
        place.find
    )
    ((file, text),) = place.choose(tmp_path / "a")[1].items()
    assert file == tmp_path / "set-some-root"
    file.write_bytes(text)
    assert place.find() == tmp_path / "a" and place.choose(None) == (tmp_path / "a", {})
    monkeypatch.setenv("LRFR_SET_SOME_ROOT", str(tmp_path / "b"))
    assert place.find() == tmp_path / "b"
    assert "would win; unset it or leave that place out" in refusal(place.choose, tmp_path / "a")
