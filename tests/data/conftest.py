"""The fixtures of the sources' tests."""

from tests.sources.conftest import manifest, real_lfw, small_lfw, study  # noqa: F401
