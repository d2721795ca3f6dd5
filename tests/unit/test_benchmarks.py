"""The benchmark's bookkeeping, its generators, and the committed race that the book reads."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.iteration import memory, roofline
from benchmarks.peers import error_of, published
from benchmarks.problems import PROBLEMS, make
from benchmarks.solver import KEPT, LEVELS, best_of, reach
from coala_lib.cvxnn import solve
from coala_lib.cvxnn.published import published_admm

RACE = Path(__file__).parents[2] / "notebooks" / "fixtures" / "solver_benchmark.json"


def test_a_level_is_reached_where_the_error_stays_within_it() -> None:
    curve = [(1.0, 0.5), (2.0, 9e-3), (3.0, 2e-2), (4.0, 9e-4), *((5.0 + k, 1e-9) for k in range(20))]
    found = reach(iter(curve), LEVELS, limit=100.0)
    assert found["seconds"] == {"0.01": 4.0, "0.001": 4.0, "0.0001": 5.0}
    assert (found["spent"], found["last_error"]) == (4.0 + KEPT, 1e-9)
    assert found["curve"] == curve[: 3 + KEPT + 1]


def test_an_objective_that_passes_the_optimum_has_not_reached_it() -> None:
    found = reach(iter([(1.0, 9e-5), (2.0, 5e-2), (3.0, 9e-3)]), LEVELS, limit=100.0)
    assert found["seconds"] == {"0.01": 3.0, "0.001": None, "0.0001": None}


def test_reach_stops_at_the_limit_and_says_what_is_missing() -> None:
    found = reach(iter([(1.0, 9e-3), (7.0, 5e-3), (9.0, 1e-9)]), LEVELS, limit=5.0)
    assert found["seconds"] == {"0.01": 1.0, "0.001": None, "0.0001": None}
    assert found["spent"] == 7.0


def test_one_point_may_reach_several_levels() -> None:
    found = reach(iter([(3.0, 1e-9)]), LEVELS, limit=5.0)
    assert found["seconds"] == dict.fromkeys(("0.01", "0.001", "0.0001"), 3.0)


def test_every_level_takes_its_own_best_of_a_grid() -> None:
    curves = {
        0.1: [(1.0, 9e-3), (99.0, 2e-3)],  # soonest at the first level, never at the second
        1.0: [(2.0, 9e-3), (3.0, 9e-4), (4.0, 9e-5)],
        10.0: [(1.5, 9e-3), (2.0, 9e-4), (5.0, 9e-5)],
        100.0: [(0.1, np.nan)],
    }
    found = best_of({rho: lambda rho=rho: iter(curves[rho]) for rho in curves}, limit=10.0)
    assert found["seconds"] == {"0.01": 1.0, "0.001": 2.0, "0.0001": 4.0}
    assert found["settings"] == {"0.01": 0.1, "0.001": 10.0, "0.0001": 1.0}
    assert (found["setting"], found["grid"]) == (1.0, list(curves))
    nothing = best_of({0.1: lambda: iter([(1.0, np.nan)]), 1.0: lambda: iter([(2.0, 0.5)])}, 1.0)
    assert (nothing["setting"], nothing["settings"]["0.01"], nothing["seconds"]["0.01"]) == (1.0, None, None)


@pytest.mark.parametrize("name", ["small-relu", "small-gated"])
def test_the_peers_error_vanishes_at_the_optimum_and_sees_both_faults(name: str) -> None:
    program = make(name, scale=0.3).program
    solution = solve(program, tol=1e-3)
    U = np.stack([solution.v, solution.w][: program.halves])
    assert error_of(program, U, solution.primal) < 1e-6
    assert error_of(program, 1.2 * U, solution.primal) > 1e-4
    if program.variant == "relu":
        assert error_of(program, -U, program.objective(*-U)) > 0.1  # right objective, outside the cones


def test_the_published_curve_has_the_peers_error() -> None:
    program = make("small-relu", scale=0.3).program
    best = solve(program, tol=1e-3).primal
    curve = list(itertools.islice(published(program, best, 1.0, chunk=40), 4))
    seconds, errors = np.array(curve).T
    assert (np.diff(seconds) > 0).all()
    states = [published_admm(program, 1.0, n_iter)[0] for n_iter in (20, 40, 60, 80)]
    assert errors == pytest.approx([error_of(program, state.V, best) for state in states], rel=1e-2, abs=1e-5)


def test_the_products_of_an_iteration_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    iterations = itertools.cycle((20, 120))

    def seconds(function: Callable, _: int = 5) -> float:
        shape = function().shape  # 50 products of a column take 50 s, an iteration takes 14 s a pattern
        return 50.0 * shape[1] if len(shape) == 2 else 14.0 * next(iterations) * shape[1]

    monkeypatch.setattr("benchmarks.iteration._timed", seconds)
    problem = make("small-relu", scale=0.3)
    found = roofline(problem, cg_steps=4, repeats=2)
    # 2P columns for X^T s and X u, P for each of four CG steps and for the first residual
    assert found["products_seconds"] == 7 * problem.program.patterns.shape[1]
    assert (found["ratio"], found["range"]) == (2.0, [2.0, 2.0])


def test_a_loop_holds_at_least_its_inputs() -> None:
    problem = make("small-relu", scale=0.3)
    for held in memory(problem).values():
        assert held["bytes"] > 2 * problem.program.X.nbytes  # X and its transpose
        assert held["ratio"] == held["bytes"] / held["unit_bytes"] > 1


def test_problems_are_seeded_and_scaled() -> None:
    first, again = (make("small-relu", scale=0.5).program for _ in range(2))
    np.testing.assert_array_equal(first.X, again.X)
    assert first.X.shape == (100, 8)
    assert np.square(first.X).sum(axis=1).mean() == pytest.approx(1.0, rel=1e-5)
    assert abs(first.y.mean()) < 0.5


def test_the_committed_race_is_of_these_problems() -> None:
    race = json.loads(RACE.read_text(encoding="utf-8"))
    assert race["scale"] == 1.0
    assert {"path", "growth", *PROBLEMS} <= {name for run in race["runs"] for name in run["measured"]}
    assert set(race["problems"]) == set(PROBLEMS)
    for name, problem in race["problems"].items():
        _, n, d, P, variant, share = PROBLEMS[name]
        assert (problem["n"], problem["d"], problem["variant"]) == (n, d, variant)
        assert problem["P"] <= P
        assert problem["share_of_reg_max"] == share
        names = [f"{level:g}" for level in LEVELS]
        for peer in problem["peers"].values():
            assert list(peer["seconds"]) == names
            assert (peer["seconds"][names[-1]] is not None) == (peer["last_error"] <= LEVELS[-1])
        for key in ("ours", "ours_float64"):
            rows = problem[key]["levels"]
            assert list(rows) == names[: len(rows)] != []
            for row in rows.values():
                assert row["range"][0] <= row["seconds"] <= row["range"][1]
                assert 1 <= row["repeats"] <= problem["repeats"]
