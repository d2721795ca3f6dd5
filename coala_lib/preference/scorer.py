"""Score features with a saved head: numpy and the standard library only. Copy this one file anywhere.

    rewards = score(load("head/"), features)            # (n, d) pooled hidden states of prompt + response
    python scorer.py head/ features.npy                 # one reward a line

The rewards are only as good as the features: same model, layer and pooling as in the folder's config.json.
"""

import hashlib
import json
import struct
import sys
from pathlib import Path

import numpy as np

DTYPES = {"F64": "<f8", "F32": "<f4"}


def load(folder):
    """Tensors by name, after every file of the folder has been held against SHA256SUMS."""
    folder = Path(folder)
    for line in (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines():
        digest, name = line.split("  ")
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
            raise ValueError(f"{folder / name} is not the file that was saved; save the head again")
    data = (folder / "head.safetensors").read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    tensors = {}
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__":
            first, last = (start + offset for offset in entry["data_offsets"])
            tensors[name] = np.frombuffer(data[first:last], DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return tensors


def score(head, features):
    """(n,) rewards of (n, d) features: theta2 . hidden((features - mean) / scale)."""
    features = np.asarray(features, float)
    if features.ndim != 2 or features.shape[1] != len(head["mean"]):
        raise ValueError(f"features must be (n, {len(head['mean'])}); got {features.shape}")
    z = (features - head["mean"]) / head["scale"]
    before = z @ head["theta1"].T
    open_ = z @ head["gates"] >= 0 if "gates" in head else before > 0
    return np.where(open_, before, 0.0) @ head["theta2"]


if __name__ == "__main__":
    sys.stdout.write("".join(f"{reward:.9g}\n" for reward in score(load(sys.argv[1]), np.load(sys.argv[2]))))
