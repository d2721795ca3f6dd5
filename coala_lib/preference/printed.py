"""The paper's Eq. 8 as printed: log-probabilities of a classifier where the reward of a pair would be log-odds.

    mean_k softplus(margin - beta [log sigma(theta.chosen_k) - log sigma(theta.rejected_k)])

Proposition 1 calls it convex. It is under one hypothesis that is not stated: both responses share one feature vector
and carry opposite labels (rejected = -chosen here), where it equals Eq. 9. Otherwise a single pair with independent
features is enough to break convexity, for every beta and margin. Kept to show this; nothing is trained with it.
"""

from dataclasses import dataclass

import jax
from jaxtyping import Float

from coala_lib.preference.objectives import AnyArray, Matrix, Scalar, Vector, gram, sigmoid, softplus


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Eq8:
    """The paper's Eq. 8 as printed, a function of theta; convex only where rejected = -chosen or one side is zero.

    Attributes:
        chosen, rejected: (N, m) hidden features of each pair.
        beta, margin: reward scale and gamma.

    Example:
        >>> import numpy as np
        >>> objective = Eq8(np.zeros((1, 1)), np.ones((1, 1)))
        >>> float(objective.hessian(np.zeros(1))[0, 0])
        -0.0625
    """

    chosen: Matrix
    rejected: Matrix
    beta: Scalar = 1.0
    margin: Scalar = 0.0

    def _parts(self, theta: Vector) -> tuple[AnyArray, AnyArray, AnyArray, AnyArray]:
        """q = sigma(-h) with h the logit, sigma(-a) and sigma(-b), and the gradient of h by row."""
        a, b = self.chosen @ theta, self.rejected @ theta
        q = sigmoid(self.margin - self.beta * (softplus(-b) - softplus(-a)))
        low_a, low_b = sigmoid(-a), sigmoid(-b)
        return q, low_a, low_b, self.beta * (low_a[:, None] * self.chosen - low_b[:, None] * self.rejected)

    def value(self, theta: Vector) -> Scalar:
        """The mean loss, in nats."""
        a, b = self.chosen @ theta, self.rejected @ theta
        return softplus(self.margin - self.beta * (softplus(-b) - softplus(-a))).mean()

    def gradient(self, theta: Vector) -> Vector:
        """(m,) derivative at theta."""
        q, _, _, slopes = self._parts(theta)
        return -(q @ slopes) / len(slopes)

    def hessian(self, theta: Vector) -> Float[AnyArray, "m m"]:
        """(m, m) second derivative at theta; it has negative eigenvalues."""
        q, low_a, low_b, slopes = self._parts(theta)
        bend_a, bend_b = (self.beta * q * low * (1 - low) for low in (low_a, low_b))
        outer = gram(slopes, q * (1 - q))
        return (outer + gram(self.chosen, bend_a) - gram(self.rejected, bend_b)) / len(q)

    def hvp(self, theta: Vector, v: Vector) -> Vector:
        """Hessian times v, without forming the Hessian."""
        q, low_a, low_b, slopes = self._parts(theta)
        bend_a, bend_b = (self.beta * q * low * (1 - low) for low in (low_a, low_b))
        out = (q * (1 - q) * (slopes @ v)) @ slopes
        out = out + (bend_a * (self.chosen @ v)) @ self.chosen - (bend_b * (self.rejected @ v)) @ self.rejected
        return out / len(q)

    def lipschitz(self) -> Scalar:
        """An upper bound of the Hessian's norm: mean beta^2/4 (||c|| + ||r||)^2 + beta/4 max(||c||, ||r||)^2."""
        xp = self.chosen.__array_namespace__()
        c, r = xp.linalg.norm(self.chosen, axis=1), xp.linalg.norm(self.rejected, axis=1)
        return (self.beta**2 / 4 * (c + r) ** 2 + self.beta / 4 * xp.maximum(c, r) ** 2).mean()
