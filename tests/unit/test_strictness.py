"""The suite is as strict as it says: without this, a lost line of the configuration would loosen every test unseen."""

import jax.numpy as jnp
import pytest


def test_dtypes_are_not_promoted() -> None:
    with pytest.raises(ValueError, match="dtype promotion"):
        jnp.ones(3, jnp.float32) + jnp.ones(3, jnp.int32)


def test_ranks_are_not_promoted() -> None:
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.ones(3) + jnp.ones((2, 3))
