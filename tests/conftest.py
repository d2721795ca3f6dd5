"""JAX is strict under test: no silent change of dtype, no silent broadcasting over a new axis.

Shape annotations are checked under test and nowhere else; refusals are tested as users meet them. Each worker of a
parallel run has cores of its own, and so have the kernels and workflows that it starts.
"""

import os

import jax
import jaxtyping
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

if (worker := os.environ.get("PYTEST_XDIST_WORKER")) and hasattr(os, "sched_setaffinity"):
    # XLA's threads spin while they wait: workers that share cores slow each other down several times over
    number, among = int(worker.removeprefix("gw")), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[number % among :: among] or cores)


@pytest.fixture
def without_annotations():
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def compiled_quickly():
    """For modules of many small programs that run once each: XLA's optimisations would cost more than they save.

    JAX does not tell the programs of one setting from those of the other, and they differ in their last digit:
    nothing that was compiled before may be used after, or equal seeds would give unequal weights.
    """
    jax.config.update("jax_disable_most_optimizations", True)
    jax.clear_caches()
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()
