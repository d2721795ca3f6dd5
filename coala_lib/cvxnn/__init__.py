"""The convex network: sample gates, state the program, solve it with a certificate, read off the ReLU network."""

from coala_lib.cvxnn.certificate import all_patterns_bound, certify, dual_bound
from coala_lib.cvxnn.gates import count_patterns, enumerate_gates, sample_gates
from coala_lib.cvxnn.network import (
    ReluNetwork,
    from_relu_network,
    mismatch,
    prune,
    to_relu_network,
    train_relu_network,
)
from coala_lib.cvxnn.path import reg_path
from coala_lib.cvxnn.program import ConvexProgram, reg_max
from coala_lib.cvxnn.projection import project_cones, repair_cones
from coala_lib.cvxnn.solve import solve

__all__ = [
    "ConvexProgram",
    "ReluNetwork",
    "all_patterns_bound",
    "certify",
    "count_patterns",
    "dual_bound",
    "enumerate_gates",
    "from_relu_network",
    "mismatch",
    "project_cones",
    "prune",
    "reg_max",
    "reg_path",
    "repair_cones",
    "sample_gates",
    "solve",
    "to_relu_network",
    "train_relu_network",
]
