"""Shape annotations are checked under test and nowhere else; refusals are tested as users meet them."""

import jaxtyping
import pytest


@pytest.fixture
def without_annotations():
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
