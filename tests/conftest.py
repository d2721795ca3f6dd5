"""JAX is strict under test: no silent change of dtype, no silent broadcasting over a new axis.

Shape annotations are checked under test and nowhere else; refusals are tested as users meet them.
"""

import jax
import jaxtyping
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def without_annotations():
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
