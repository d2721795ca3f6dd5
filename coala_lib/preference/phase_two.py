"""Phase II: with the first layer frozen, a smooth convex problem in m <= 2P numbers, solved to a certificate.

The ridge pulls towards the Phase-I weights. It makes the minimiser exist and unique (separable pairs have none
without it) and gives a computable bound: L(theta) - min L <= ||grad L(theta)||^2 / (2 ridge).

Differs from the paper: Newton instead of an unnamed optimiser; the ridge; pairs instead of single labelled rows.
"""

from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from coala_lib.preference import optimizers
from coala_lib.preference.objectives import Objective, from_rows
from coala_lib.preference.separability import Separability, separability

Method = Literal["newton", "agd", "lbfgs", "adamw"]
STEPS = {"newton": 50, "agd": 20_000, "lbfgs": 1000, "adamw": 500}
LARGEST_PROGRAM = 10**6  # entries of A; beyond, the linear program takes longer than Phase II


class PhaseTwoStatus(Enum):
    """How Phase II ended; `str(status)` tells the likely cause and what to do."""

    SOLVED = "solved: the certified bound is below the tolerance"
    STATIONARY = "stopped at a small gradient: without a ridge nothing bounds the distance from the minimum"
    NO_MINIMUM = "no minimum exists: the pairs are separable and there is no ridge; give ridge > 0"
    MAX_ITER = "stopped at max_iter before the tolerance: raise max_iter, loosen tol, raise ridge, or use newton"
    DIVERGED = "the iterates left the finite numbers: scale the features, or raise ridge"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class PhaseTwo:
    """The solved second layer.

    Attributes:
        theta: (m,) weights, float64.
        loss: objective with the ridge, nats.
        bound: certified distance of `loss` from the minimum, nats; inf without a ridge.
        n_iter: steps; epochs for AdamW.
        method: which optimiser.
        status: how it ended.
        separability: what the linear program says, or None where it was too large to ask.
        losses, gradient_norms, margins, norms: (n_iter + 1,) along the way: the objective, its gradient's norm, the
            mean of theta . a_k (`rewards/margins` before scaling by beta) and ||theta||.
    """

    theta: np.ndarray
    loss: float
    bound: float
    n_iter: int
    method: str
    status: PhaseTwoStatus
    separability: Separability | None
    losses: np.ndarray
    gradient_norms: np.ndarray
    margins: np.ndarray
    norms: np.ndarray

    @property
    def message(self) -> str:
        """Status and separability in a sentence each."""
        apart = self.separability or "separability was not checked: the problem is large"
        return f"{self.status}; {apart}"


def minimise(
    objective: Objective,
    start: ArrayLike | None = None,
    *,
    method: Method = "newton",
    tol: float = 1e-10,
    max_iter: int | None = None,
    **settings: object,
) -> PhaseTwo:
    """Minimise an objective of the convex family in float64.

    Args:
        objective: from `pairwise`, `pointwise` or `from_rows`.
        start: (m,) first point, by default the anchor.
        method: "newton", "agd", "lbfgs" or "adamw".
        tol: stop when the certified bound is below this, in nats; without a ridge, when the gradient norm is.
        max_iter: steps at most; by default what the method may need.
        settings: `scheme` of agd; `learning_rate`, `batch_size`, `weight_decay` and `seed` of adamw, which always
            runs all its epochs.

    Returns:
        A `PhaseTwo`.

    Raises:
        ValueError: for an unknown method or a start that does not fit.

    Example:
        >>> A = np.random.default_rng(0).normal(0.5, 1, size=(100, 3))
        >>> minimise(from_rows(A, ridge=1e-3), method="lbfgs").status.name
        'SOLVED'
    """
    if method not in get_args(Method):
        raise ValueError(f"method must be one of {', '.join(get_args(Method))}; got {method!r}")
    if not (tol > 0 and (max_iter is None or max_iter >= 0)):
        raise ValueError(f"tol must be positive and max_iter not negative; got {tol} and {max_iter}")
    start = objective.anchor if start is None else np.asarray(start, float)
    if start.shape != objective.anchor.shape or not np.isfinite(start).all():
        raise ValueError(f"start must be {objective.anchor.shape} finite numbers; got shape {start.shape}")
    steps = STEPS[method] if max_iter is None else max_iter
    ridge = float(objective.ridge)
    stop = float(np.sqrt(2 * ridge * tol)) if ridge else tol
    m, rows = len(start), len(objective.rows)
    # optax mixes integer counts with floats
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard" if method == "adamw" else "strict"):
        if method == "lbfgs":
            run = optimizers.lbfgs(objective, start, stop, steps)
        elif method == "adamw":
            run = optimizers.adamw(jax.tree.map(jnp.asarray, objective), jnp.asarray(start), steps, **settings)
        else:
            padded = _pad(objective, _room(rows, 64) - rows, _room(m, 8) - m)
            first = jnp.pad(jnp.asarray(start), (0, _room(m, 8) - m))
            run = getattr(optimizers, method)(padded, first, stop, steps, _room(steps + 1, 512), **settings)
        theta, count, path = np.asarray(run[0])[:m], int(run[1]), np.asarray(run[2])
    path = dict(zip(optimizers.PATH, path[: count + 1].T, strict=True))
    loss, slope = float(path["losses"][-1]), float(path["gradient_norms"][-1])
    found = _separability(objective, theta)
    if not np.isfinite([loss, slope]).all():
        status = PhaseTwoStatus.DIVERGED
    elif not ridge and not objective.smoothing and found is not None and found.kind != "none":
        status = PhaseTwoStatus.NO_MINIMUM
    elif slope > stop:
        status = PhaseTwoStatus.MAX_ITER
    else:
        status = PhaseTwoStatus.SOLVED if ridge else PhaseTwoStatus.STATIONARY
    bound = slope**2 / (2 * ridge) if ridge else np.inf
    return PhaseTwo(theta, loss, bound, count, method, status, found, **path)


def fit_phase_two(
    A: ArrayLike,
    anchor: ArrayLike,
    beta: float = 1.0,
    margin: float | ArrayLike = 0.0,
    ridge: float = 1e-3,
    tol: float = 1e-10,
    max_iter: int | None = None,
    *,
    method: Method = "newton",
    weights: ArrayLike | None = None,
    smoothing: float = 0.0,
    **settings: object,
) -> PhaseTwo:
    """Minimise the COALA loss of rows a_k with a ridge around the Phase-I weights.

    Args:
        A: (N, m) rows a_k, see `objectives`.
        anchor: (m,) Phase-I second layer; start and centre of the ridge.
        beta, margin, ridge, weights, smoothing: see `objectives.from_rows`.
        tol, max_iter, method, settings: see `minimise`.

    Returns:
        A `PhaseTwo`.

    Raises:
        ValueError: where a number is out of range, shapes do not fit, or something is not finite.

    Example:
        >>> A = np.random.default_rng(0).normal(0.5, 1, size=(100, 3))
        >>> bool(fit_phase_two(A, np.zeros(3)).bound < 1e-10)
        True
    """
    objective = from_rows(A, beta, margin, weights=weights, smoothing=smoothing, ridge=ridge, anchor=anchor)
    return minimise(objective, method=method, tol=tol, max_iter=max_iter, **settings)


def _room(size: int, step: int) -> int:
    """A little more room than needed, so that problems of nearly the same size share one compiled program."""
    step = max(step, 2 ** max(int(size - 1).bit_length() - 3, 0))
    return -(-size // step) * step


def _pad(objective: Objective, rows: int, columns: int) -> Objective:
    # rows of weight zero change nothing; a column of zeros has its minimiser at the anchor, which is zero there
    return replace(
        jax.tree.map(jnp.asarray, objective),
        rows=jnp.pad(jnp.asarray(objective.rows), ((0, rows), (0, columns))),
        weights=jnp.pad(jnp.asarray(objective.weights), (0, rows)),
        margin=jnp.pad(jnp.asarray(objective.margin), (0, rows)),
        anchor=jnp.pad(jnp.asarray(objective.anchor), (0, columns)),
    )


def _separability(objective: Objective, theta: np.ndarray) -> Separability | None:
    A = np.asarray(objective.rows)[np.asarray(objective.weights) > 0]
    ahead = A @ theta
    if (ahead > 0).all():  # the solution itself separates
        norm = np.linalg.norm(theta)
        return Separability("complete", float(ahead.min() / norm), theta / norm)
    return separability(A) if A.size <= LARGEST_PROGRAM else None
