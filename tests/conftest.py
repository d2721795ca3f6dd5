"""JAX is strict under test: no silent change of dtype, no silent broadcasting over a new axis."""

import jax

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
