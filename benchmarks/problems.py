"""The benchmark's problems, from seeded generators: Gaussian features and features like a language model's."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from coala_lib.cvxnn import ConvexProgram, reg_max, sample_gates

TEACHER_NEURONS = 8


@dataclass(frozen=True)
class Problem:
    """One program with its name; `share` is reg / reg_max."""

    name: str
    program: ConvexProgram
    share: float


def _unit(X: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Mean squared row norm 1."""
    return X / np.sqrt(np.square(X).sum(axis=1).mean())


def _labels(rng: np.random.Generator, X: Float[np.ndarray, "n d"], flipped: float) -> Float[np.ndarray, " n"]:
    """A planted ReLU teacher, thresholded at its median, with a share of labels flipped."""
    neurons = rng.standard_normal((TEACHER_NEURONS, X.shape[1]))
    score = np.maximum(X @ neurons.T, 0) @ rng.choice([-1.0, 1.0], TEACHER_NEURONS)
    return np.where(score > np.median(score), 1.0, -1.0) * np.where(rng.random(len(X)) < flipped, -1.0, 1.0)


def gaussian(n: int, d: int, seed: int = 0) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, " n"]]:
    """Independent Gaussian features; 10 % of the labels flipped."""
    rng = np.random.default_rng(seed)
    X = _unit(rng.standard_normal((n, d)))
    return X.astype(np.float32), _labels(rng, X, 0.1)


def language_like(n: int, d: int, seed: int = 0) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, " n"]]:
    """Singular values 1/i in a random basis, 2 % noise, a common mean direction of half a unit; 25 % flipped."""
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
    X = _unit((rng.standard_normal((n, d)) / np.arange(1, d + 1)) @ basis.T)
    X = X + 0.02 * rng.standard_normal((n, d)) / np.sqrt(d)
    mean = rng.standard_normal(d)
    X = _unit(X + 0.5 * mean / np.linalg.norm(mean))
    return X.astype(np.float32), _labels(rng, X, 0.25)


def make(name: str, scale: float = 1.0) -> Problem:
    """A problem by name; `scale` shrinks n, d and P for a trial.

    Raises:
        KeyError: for an unknown name.
    """
    generator, n, d, P, variant, share = PROBLEMS[name]
    n, d, P = (max(4, int(size * scale)) for size in (n, d, P))
    X, y = generator(n, d)
    program = ConvexProgram(X, y, sample_gates(X, P), reg=1.0, variant=variant)
    return Problem(name, program.with_reg(share * reg_max(program)), share)


PROBLEMS = {
    "small-relu": (gaussian, 200, 16, 8, "relu", 0.02),
    "small-gated": (gaussian, 200, 16, 8, "gated", 0.2),
    "gauss-relu": (gaussian, 2000, 64, 32, "relu", 0.02),
    "gauss-gated": (gaussian, 2000, 64, 32, "gated", 0.2),
    "lm-relu": (language_like, 4000, 256, 32, "relu", 0.05),
    "lm-gated": (language_like, 4000, 256, 32, "gated", 0.05),
    "lm-gated-weak": (language_like, 4000, 256, 32, "gated", 0.005),
    "large-gated": (language_like, 20000, 768, 16, "gated", 0.02),
    "lm-relu-weak": (language_like, 4000, 256, 32, "relu", 0.005),
}
