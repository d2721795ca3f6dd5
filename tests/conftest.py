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


@pytest.fixture(scope="module")
def compiled_quickly():
    """For modules of many small programs that run once each: XLA's optimisations would cost more than they save."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
