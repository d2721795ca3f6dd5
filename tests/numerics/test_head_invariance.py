"""The same head from numpy and JAX, float32 and float64, one device and eight; simulated in a process of its own."""

import json
import subprocess
import sys

SCRIPT = """
import json, os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["JAX_PLATFORMS"] = "cpu"
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from coala_lib import CoalaHead

rng = np.random.default_rng(0)
chosen, rejected = (rng.normal(s, 1, (40, 4)).astype(np.float32).astype(float) for s in (0.3, -0.3))
rows = NamedSharding(jax.make_mesh((8,), ("rows",)), PartitionSpec("rows"))
narrow = [X.astype(np.float32) for X in (chosen, rejected)]
forms = {
    "float64": (chosen, rejected),
    "float32": narrow,
    "jax": [jnp.asarray(X) for X in narrow],
    "eight devices": [jax.device_put(X, rows) for X in narrow],
}
found, seen = {}, []
import coala_lib.preference.head as module
plain = module.solve
module.solve = lambda *a, mesh=None, **k: (seen.append(mesh is not None), plain(*a, mesh=mesh, **k))[1]
for name, pair in forms.items():
    head = CoalaHead(n_gates=4, reg=0.2, tol=1e-11, max_iter=50_000).fit_pairs(*pair)
    rewards = head.decision_function(pair[0])
    found[name] = [head.status_.name, type(rewards).__name__, rewards.tolist(), head.score_pairs(*pair)]
print(json.dumps([found, seen]))
"""


def test_one_head_whatever_the_array():
    run = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    found, sharded = json.loads(run.stdout.splitlines()[-1])
    assert sharded == [False, False, False, True]
    whole = found.pop("float64")
    size = max(map(abs, whole[2]))
    for status, kind, rewards, accuracy in found.values():
        assert (status, kind, accuracy) == ("SOLVED", "ndarray", whole[3])
        assert max(abs(a - b) for a, b in zip(rewards, whole[2], strict=True)) < 1e-5 * size
