"""The suite is as strict as it says: without this, a lost line of the configuration would loosen every test unseen."""

import jax
import jax.numpy as jnp
import pytest


def test_dtypes_are_not_promoted() -> None:
    with pytest.raises(ValueError, match="dtype promotion"):
        jnp.ones(3, jnp.float32) + jnp.ones(3, jnp.int32)


def test_ranks_are_not_promoted() -> None:
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.ones(3) + jnp.ones((2, 3))


def test_quick_modules_use_no_program_compiled_before(request: pytest.FixtureRequest) -> None:
    seen = []

    @jax.jit
    def program(x: jax.Array) -> jax.Array:
        seen.append("compiled")
        return x + 1

    program(jnp.float32(1))
    request.getfixturevalue("compiled_quickly")
    program(jnp.float32(1))
    assert len(seen) == 2
