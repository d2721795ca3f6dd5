"""The regularisation path: one program at falling strengths, each solve started from the solution before it."""

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from coala_lib.cvxnn.program import ConvexProgram, reg_max
from coala_lib.cvxnn.solve import solve
from coala_lib.solution import Solution


def reg_path(
    program: ConvexProgram,
    shares: Sequence[float] | None = None,
    tol: float = 1e-3,
    max_iter: int = 5000,
    progress: bool = False,
    **settings: object,
) -> list[tuple[float, Solution]]:
    """Solve for a falling sequence of regularisation strengths, each from the solution before it.

    Args:
        program: its reg is not looked at.
        shares: of `reg_max`, in (0, 1]; by default 30 values from 0.5 to 0.01, evenly spaced in the logarithm.
        tol, max_iter: as in `solve`, for each point.
        progress: show a tqdm bar over the points.
        settings: the other arguments of `solve`.

    Returns:
        (reg, solution) for each share, in falling order.

    Raises:
        ValueError: for a share outside (0, 1].

    Example:
        >>> from coala_lib.cvxnn.gates import sample_gates
        >>> X = np.random.default_rng(0).normal(size=(40, 3))
        >>> program = ConvexProgram(X, np.sign(X[:, 0]), sample_gates(X, 4), reg=1.0)
        >>> [solution.status.name for _, solution in reg_path(program, shares=(0.5, 0.1))]
        ['SOLVED', 'SOLVED']
    """
    shares = np.geomspace(0.5, 0.01, 30) if shares is None else np.sort(np.asarray(shares, float))[::-1]
    if not len(shares) or not ((shares > 0) & (shares <= 1)).all():
        raise ValueError(f"shares of reg_max lie in (0, 1]; got {list(map(float, shares))}")
    top, path, last = reg_max(program), [], None
    for share in tqdm(shares, desc="reg_path", disable=not progress):
        reg = float(share * top)
        last = solve(program.with_reg(reg), tol, max_iter, start=last, **settings)
        path.append((reg, last))
        last = last if last.state is not None else None
    return path
