"""Preference data: one schema and its dialects, the Alternating Population Strategy, and generated worlds.

The names below are imported on first use, so that a chapter depends only on the files it takes names from.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # also how tools that read imports see what a chapter depends on
    from coala_lib.corpora.alternating import AlternationReport, alternate, alternate_any, first_utterance
    from coala_lib.corpora.conversation import Conversation, Message
    from coala_lib.corpora.edu import Style, conversations, make_world
    from coala_lib.corpora.edu_oracle import judge
    from coala_lib.corpora.edu_pairs import EDU_DIFFICULTIES, Difficulty
    from coala_lib.corpora.export import to_rows, write_triplets
    from coala_lib.corpora.files import to_dataset
    from coala_lib.corpora.hub import load_conversations, load_pairs
    from coala_lib.corpora.report import Problem, Report
    from coala_lib.corpora.reviews import REVIEW_STYLES, ReviewStyle, review_pairs
    from coala_lib.corpora.reviews_oracle import judge_review, read_review
    from coala_lib.corpora.splitting import deduplicate, split_by_prompt
    from coala_lib.corpora.triplets import Triplet, TripletError, split, validate
    from coala_lib.corpora.validation import check_file, read_jsonl, read_triplets, sift

__all__ = [
    "EDU_DIFFICULTIES",
    "REVIEW_STYLES",
    "AlternationReport",
    "Conversation",
    "Difficulty",
    "Message",
    "Problem",
    "Report",
    "ReviewStyle",
    "Style",
    "Triplet",
    "TripletError",
    "alternate",
    "alternate_any",
    "check_file",
    "conversations",
    "deduplicate",
    "first_utterance",
    "judge",
    "judge_review",
    "load_conversations",
    "load_pairs",
    "make_world",
    "read_jsonl",
    "read_review",
    "read_triplets",
    "review_pairs",
    "sift",
    "split",
    "split_by_prompt",
    "to_dataset",
    "to_rows",
    "validate",
    "write_triplets",
]
_NAMES = {
    "alternating": "AlternationReport alternate alternate_any first_utterance",
    "conversation": "Conversation Message",
    "edu": "Style conversations make_world",
    "edu_oracle": "judge",
    "edu_pairs": "EDU_DIFFICULTIES Difficulty",
    "export": "to_rows write_triplets",
    "files": "to_dataset",
    "hub": "load_conversations load_pairs",
    "report": "Problem Report",
    "reviews": "REVIEW_STYLES ReviewStyle review_pairs",
    "reviews_oracle": "judge_review read_review",
    "splitting": "deduplicate split_by_prompt",
    "triplets": "Triplet TripletError split validate",
    "validation": "check_file read_jsonl read_triplets sift",
}
_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'coala_lib.corpora' has no attribute {name!r}")
    return getattr(import_module(f"coala_lib.corpora.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
