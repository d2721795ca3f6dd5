"""Phase I against its peers on the same programs, ours before and after them: writes the JSON that the book reads.

    python -m benchmarks.solver                  all problems, about an hour on two cores
    python -m benchmarks.solver --only gauss-relu --only path --limit 30

Every peer stops at the first of: the tightest error, the time limit, ten thousand points. Our certified times are
medians, every other solve is timed once; an absolute time says as much about the machine as about the code.
"""

import datetime
import json
import platform
import sys
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from benchmarks import iteration, peers
from benchmarks.problems import PROBLEMS, Problem, make
from benchmarks.results import write
from coala_lib._device import describe_device
from coala_lib.cvxnn import ConvexProgram, reg_path, solve

LEVELS = (1e-2, 1e-3, 1e-4)
RESULTS = Path(__file__).parents[1] / "notebooks" / "fixtures" / "solver_benchmark.json"
MAX_ITER, TRUTH_ITER = 20_000, 6000
KEPT = 5  # points for which a peer must stay within the tightest level


def ours(program: ConvexProgram, levels: tuple[float, ...], repeats: int, limit: float) -> dict:
    """Certified solves to each level, after a first one that compiles: median, lowest and highest seconds."""
    found = {}
    solve(program, tol=0.9, max_iter=20)
    for level in levels:
        seconds, solution = [], None
        for _ in range(repeats):
            began = time.perf_counter()
            solution = solve(program, tol=level, max_iter=MAX_ITER)
            seconds.append(time.perf_counter() - began)
            if seconds[-1] > limit / repeats:
                break
        found[f"{level:g}"] = {
            "seconds": float(np.median(seconds)),
            "range": [min(seconds), max(seconds)],
            "repeats": len(seconds),
            "reached": solution.certificate.relative_gap <= level,
            "gap": solution.certificate.relative_gap,
            "iterations": solution.n_iter,
        }
        if not found[f"{level:g}"]["reached"]:
            break
    return {"levels": found}


def reach(curve: peers.Curve, levels: tuple[float, ...], limit: float) -> dict:
    """Seconds from which on a peer's error stays within each level to the end of its run; None where it never does.

    A run ends once the tightest level has been kept for `KEPT` points: an objective that passes p* on its way is right
    for a moment only. The limit is looked at between points.
    """
    points, kept = [], 0
    for seconds, error in curve:
        points.append((seconds, error))
        kept = kept + 1 if error <= levels[-1] else 0
        if kept == KEPT or seconds > limit or not np.isfinite(error) or len(points) > 10_000:
            break
    seconds, errors = np.array(points).T
    worst = np.maximum.accumulate(errors[::-1])[::-1]
    times = {
        f"{level:g}": float(seconds[np.argmax(worst <= level)]) if worst[-1] <= level else None for level in levels
    }
    stride = -(-len(points) // 200)
    return {
        "seconds": times,
        "spent": points[-1][0],
        "last_error": points[-1][1],
        "curve": points[:-1:stride] + points[-1:],
    }


def best_of(entrants: dict[float, Callable[[], peers.Curve]], limit: float) -> dict:
    """The best setting of a grid at each level, the search not charged; the curve is of the run that got furthest."""
    runs, soonest = {}, limit
    for setting, entrant in entrants.items():
        runs[setting] = reach(entrant(), LEVELS, soonest)
        if runs[setting]["seconds"][f"{LEVELS[-1]:g}"] is not None:
            soonest = min(soonest, runs[setting]["spent"])  # whoever needs longer has lost at every level

    def rank(setting: float) -> tuple[int, float]:
        reached = [seconds for seconds in runs[setting]["seconds"].values() if seconds is not None]
        last = runs[setting]["last_error"]
        return -len(reached), max(reached) if reached else last if np.isfinite(last) else np.inf

    seconds, settings = {}, {}
    for level in map("{:g}".format, LEVELS):
        found = {setting: run["seconds"][level] for setting, run in runs.items() if run["seconds"][level] is not None}
        settings[level] = min(found, key=found.get, default=None)
        seconds[level] = found.get(settings[level])
    best = min(runs, key=rank)
    return runs[best] | {"seconds": seconds, "setting": best, "settings": settings, "grid": list(runs)}


def compare(problem: Problem, limit: float, repeats: int, with_clarabel: bool) -> dict:
    """Our solver and every peer that fits the problem."""
    program = problem.program
    exact = ConvexProgram(program.X.astype(float), program.y, program.gates.astype(float), program.reg, program.variant)
    began = time.perf_counter()
    truth = solve(exact, tol=1e-6, max_iter=TRUTH_ITER)
    best = (truth.primal + truth.dual) / 2
    result = {
        "n": len(program.X),
        "d": program.X.shape[1],
        "P": program.patterns.shape[1],
        "variant": program.variant,
        "share_of_reg_max": problem.share,
        "limit_seconds": limit,
        "repeats": repeats,
        "optimum": best,
        "optimum_relative_gap": truth.certificate.relative_gap,
        "optimum_seconds": time.perf_counter() - began,
        "ours": ours(program, LEVELS, repeats, limit),
        "ours_float64": ours(exact, LEVELS, 1, limit),
        "peers": {},
    }
    entrants: dict[str, Callable[[], dict]] = {}
    if program.variant == "gated":
        entrants["pyscnn"] = lambda: reach(peers.scnn(program, best), LEVELS, limit)
        entrants["pyscnn, its own stop"] = lambda: reach(peers.scnn_alone(program, best), LEVELS, limit)
    else:
        mine = {sigma: partial(peers.uncertified, program, best, sigma) for sigma in peers.SIGMAS}
        entrants["ours, uncertified"] = lambda: best_of(mine, limit)
        reference = {tol: partial(peers.scnn, program, best, tol) for tol in peers.SCNN_TOLS}
        entrants["pyscnn"] = lambda: best_of(reference, limit)
        theirs = {rho: partial(peers.published, program, best, rho) for rho in peers.PUBLISHED_RHOS}
        entrants["ADMM as published"] = lambda: best_of(theirs, limit)
        entrants["Adam, non-convex"] = lambda: reach(peers.adam(program, best), LEVELS, limit)
    general = ("CLARABEL", "SCS") if problem.name.startswith("small") else ("CLARABEL",) if with_clarabel else ()
    for solver in general:
        name = "Clarabel" if solver == "CLARABEL" else solver
        entrants[name] = lambda solver=solver: reach(peers.interior_point(program, best, solver), LEVELS, limit)
    for name, entrant in entrants.items():
        try:
            result["peers"][name] = entrant()
        except ImportError as missing:
            result["peers"][name] = {"missing": str(missing)}
        print(f"{problem.name}: {name} done", file=sys.stderr)
    again = ours(program, LEVELS, 1, limit)["levels"]
    result["ours"]["again"] = {level: row["seconds"] for level, row in again.items()}
    return result


def path(problem: Problem, tol: float = 1e-2) -> dict:
    """Thirty points along the regularisation path against the hardest of them from a cold start."""
    program = problem.program
    reg_path(program, shares=(0.5, 0.4), tol=0.1, max_iter=50)
    began = time.perf_counter()
    points = reg_path(program, tol=tol, max_iter=MAX_ITER)
    total = time.perf_counter() - began
    began = time.perf_counter()
    cold = solve(program.with_reg(points[-1][0]), tol=tol, max_iter=MAX_ITER)
    hardest = time.perf_counter() - began
    return {
        "problem": problem.name,
        "tol": tol,
        "points": len(points),
        "solved": sum(solution.certificate.relative_gap <= tol for _, solution in points),
        "iterations": [solution.n_iter for _, solution in points],
        "path_seconds": total,
        "hardest_seconds": hardest,
        "hardest_iterations": cold.n_iter,
        "ratio": total / hardest,
    }


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("jax", "jaxlib", "numpy", "scipy", "cvxpy", "clarabel", "scs", "pyscnn", "torch", "optax"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def main(
    only: Annotated[
        list[str] | None, typer.Option(help="problems to run by name, `path` or `growth`; all by default")
    ] = None,
    limit: Annotated[float, typer.Option(help="seconds after which a peer starts no new point", min=0.01)] = 45.0,
    repeats: Annotated[int, typer.Option(help="repetitions of our solves", min=1)] = 3,
    scale: Annotated[float, typer.Option(help="shrink all problems, for a trial", min=0.01, max=1.0)] = 1.0,
    clarabel: Annotated[bool, typer.Option(help="Clarabel on gauss-relu too: minutes")] = True,
    out: Annotated[Path, typer.Option(help="where to write the result")] = RESULTS,
) -> None:
    """Measure and write the JSON that the book reads."""
    known = ["path", "growth", *PROBLEMS]
    names = only or known
    if unknown := set(names) - set(known):
        raise typer.BadParameter(f"no problem {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    began = time.perf_counter()
    result = {"schema": 1, "device": describe_device(), "versions": _versions(), "scale": scale}
    # a race of some problems goes into the file of an earlier one on the same machine and versions
    former = json.loads(out.read_text(encoding="utf-8")) if only and out.exists() else {}
    same = all(former.get(key) == result[key] for key in ("schema", "device", "versions", "scale"))
    result = (former if same else {}) | result
    result.setdefault("problems", {})
    before = result.get("seconds", 0.0)
    this = {"began": datetime.datetime.now(datetime.UTC).isoformat(timespec="minutes"), "measured": []}
    result["runs"] = [*result.get("runs", []), this]

    for name in names:
        if name == "path":
            result["path"] = path(make("gauss-relu", scale))
        elif name == "growth":
            result["growth"] = iteration.growth()
        else:
            problem = make(name, scale)
            result["problems"][name] = compare(problem, limit, repeats, clarabel and name == "gauss-relu")
            if name in ("gauss-relu", "lm-relu"):
                result["problems"][name]["roofline"] = iteration.roofline(problem)
                result["problems"][name]["memory"] = iteration.memory(problem)
        this["measured"].append(name)
        result["seconds"] = before + time.perf_counter() - began
        write(out, result)  # a race that is cut short keeps the problems it has finished
    typer.echo(f"{out}: {result['seconds']:.0f} s")


if __name__ == "__main__":
    typer.run(main)
