"""The convex network: sample gates, state the program, solve it with a certificate, read off the ReLU network."""

from coala_lib.cvxnn.cronos import solve
from coala_lib.cvxnn.gates import sample_gates
from coala_lib.cvxnn.network import ReluNetwork, to_relu_network
from coala_lib.cvxnn.program import ConvexProgram, reg_max

__all__ = ["ConvexProgram", "ReluNetwork", "reg_max", "sample_gates", "solve", "to_relu_network"]
