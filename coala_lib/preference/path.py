"""The regularisation path of a head: one program at falling strengths, each solve warm-started, one head a point."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import clone

from coala_lib.cvxnn import reg_path

if TYPE_CHECKING:
    from coala_lib.preference.head import CoalaHead

SHARED = ("mean_", "scale_", "form_", "n_rows_", "fingerprint_", "dtype_", "classes_", "n_features_in_")


@dataclass(frozen=True)
class RegPath:
    """Heads along a path.

    Attributes:
        regs: (k,) shares of `reg_max`, falling.
        heads: the k fitted heads.
        accuracies: (k,) held-out pair accuracies, or None where no pairs were held out.
        best: index of the highest held-out accuracy, the strongest regularisation among equals; None without.
    """

    regs: np.ndarray
    heads: list["CoalaHead"]
    accuracies: np.ndarray | None
    best: int | None

    @property
    def best_head(self) -> "CoalaHead":
        """The head at `best`."""
        if self.best is None:
            raise ValueError("nothing was held out; give held_out=(X_chosen, X_rejected) to choose a head")
        return self.heads[self.best]


def fit_path(
    head: "CoalaHead",
    X_chosen: ArrayLike,
    X_rejected: ArrayLike,
    regs: ArrayLike | None = None,
    held_out: Sequence[ArrayLike] | None = None,
) -> RegPath:
    """Fit a head at every regularisation strength.

    Args:
        head: its parameters, `reg` apart, are those of all heads; it stays as it is.
        X_chosen, X_rejected: (N, d) training pairs.
        regs: shares of `reg_max` in (0, 1); by default 12 from 0.5 to 0.01.
        held_out: pairs that choose among the heads.

    Returns:
        A `RegPath`.

    Raises:
        ValueError: for shares outside (0, 1), or one so large that the solution is zero.
    """
    regs = np.geomspace(0.5, 0.01, 12) if regs is None else np.sort(np.unique(np.asarray(regs, float)))[::-1]
    if not ((regs > 0) & (regs < 1)).all() or not len(regs):
        raise ValueError(f"regs are shares of reg_max in (0, 1); got {regs.tolist()}")
    first = clone(head)
    chosen, rejected = first._pairs(X_chosen, X_rejected)
    program = first._pair_program(chosen, rejected)
    solved = reg_path(program, regs.tolist(), tol=head.tol, max_iter=head.max_iter, rho=head.rho)
    heads = []
    for reg, (strength, solution) in zip(regs.tolist(), solved, strict=True):
        fitted = clone(head).set_params(reg=reg)
        vars(fitted).update({name: value for name, value in vars(first).items() if name in SHARED})
        fitted._adopt(program.with_reg(strength), solution)
        heads.append(fitted._refit_pairs(chosen, rejected))
    if held_out is None:
        return RegPath(regs, heads, None, None)
    accuracies = np.array([fitted.score_pairs(*held_out) for fitted in heads])
    return RegPath(regs, heads, accuracies, int(np.argmax(accuracies)))
