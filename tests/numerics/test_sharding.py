"""The rows of X spread over eight devices give the same solution; simulated in a process of its own."""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, os, sys
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"
import jax, numpy as np
from jax.sharding import Mesh
from coala_lib.cvxnn import ConvexProgram, reg_max, sample_gates, solve
from coala_lib.cvxnn.solve import _place

made = jax.make_mesh((8,), ("rows",)) if sys.argv[1] == "made" else Mesh(np.array(jax.devices()), ("rows",))
found = []
CASES = (37, "relu", "squared"), (37, "relu", "logistic"), (37, "gated", "squared"), (37, "gated", "logistic")
for n, variant, loss in CASES:
    same = {"algorithm": "admm", "method": "cg"} if variant == "relu" else {}
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 3))
    y = np.sign(X[:, 0] * X[:, 1] + 0.5 * rng.normal(size=n))
    program = ConvexProgram(X, y, sample_gates(X, 6), 1.0, variant=variant, loss=loss)
    program = program.with_reg(0.2 * reg_max(program))
    spread, whole = (solve(program, 1e-9, 20_000, mesh=mesh, **same) for mesh in (made, None))
    warm = solve(program, 1e-9, 20_000, mesh=made, start=whole, **same)
    with jax.enable_x64(True):
        placed = _place(program, made)
        A = placed.A
        rows = {"X": (A.X, 0), "XT": (A.XT, 1), "D": (A.D, 0), "y": (placed.y, 0)}
    shards = {
        name: [len(a.sharding.device_set), *{shard.data.shape[axis] for shard in a.addressable_shards}]
        for name, (a, axis) in rows.items()
    }
    found.append({
        "n": n, "shards": shards, "status": [s.status.name for s in (spread, whole, warm)],
        "primal": [s.primal for s in (spread, whole)], "n_iter": [s.n_iter for s in (spread, whole, warm)],
        "apart": float(max(np.abs(spread.v - whole.v).max(), np.abs(spread.w - whole.w).max())),
        "size": float(np.abs(whole.v).max()), "shapes": [list(spread.v.shape), list(whole.v.shape)],
    })
print(json.dumps(found))
"""


@pytest.mark.parametrize("mesh", ["made", "plain"])
def test_eight_devices_agree_with_one(mesh):
    run = subprocess.run([sys.executable, "-c", SCRIPT, mesh], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    cases = json.loads(run.stdout.splitlines()[-1])
    assert len(cases) == 4
    for case in cases:
        rows = -(-case["n"] // 8)
        assert case["shards"] == {name: [8, rows] for name in ("X", "XT", "D", "y")}
        assert set(case["status"]) == {"SOLVED"}
        assert case["primal"][0] == pytest.approx(case["primal"][1], rel=1e-6)
        assert case["apart"] < 1e-6 * case["size"]
        assert case["shapes"][0] == case["shapes"][1]
        assert case["n_iter"][2] < case["n_iter"][0]
