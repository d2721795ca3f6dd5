"""Preference data: one schema, the Alternating Population Strategy, and a generated world with an oracle."""

from coala_lib.corpora.alternating import alternate
from coala_lib.corpora.edu import conversations, make_world
from coala_lib.corpora.edu_oracle import judge
from coala_lib.corpora.triplets import Triplet, TripletError, read_jsonl, split, validate

__all__ = [
    "Triplet",
    "TripletError",
    "alternate",
    "conversations",
    "judge",
    "make_world",
    "read_jsonl",
    "split",
    "validate",
]
