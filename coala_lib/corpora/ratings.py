"""Ratings into pairs: HelpSteer's attributes, Reddit's votes (SHP), UltraFeedback's four rated completions.

A rating states a preference only where it differs: ties and weak votes are left out and counted, never turned into
pairs by chance. `score_chosen` and `score_rejected` keep the ratings.

Differs from the paper: it pairs UltraFeedback's best completion with the worst (App. E.2); the binarized data set on
the Hub pairs it with a random other one. `ultrafeedback(rejected=...)` gives either.
"""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Any, Literal

from coala_lib.corpora.dialect import Dialect, LeftOut, Numbered, extras, single, text
from coala_lib.corpora.files import Row
from coala_lib.corpora.triplets import FIELDS, BadRow, Triplet, say

ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
_SCORES = ("score_chosen", "score_rejected")


def _number(row: Row, field: str) -> int | float:
    value = row.get(field)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise BadRow(field, f"is {value!r:.40}, not a number")
    return value


def _triplet(
    row: Row, prompt: str, chosen: str, rejected: str, scores: tuple[int | float, int | float]
) -> dict[str, Any]:
    sides = {"prompt": say("user", prompt), "chosen": say("assistant", chosen), "rejected": say("assistant", rejected)}
    return dict(row) | sides | dict(zip(_SCORES, scores, strict=True))


def _scores(triplet: Triplet, name: str) -> tuple[int | float, int | float]:
    if any(triplet.get(score) is None for score in _SCORES):
        raise BadRow(
            "score_chosen", f"or 'score_rejected' is missing, which dialect {name!r} needs; write 'trl' instead"
        )
    return triplet["score_chosen"], triplet["score_rejected"]


def helpsteer(
    attribute: str = "helpfulness", pairing: Literal["extremes", "all"] = "extremes", min_gap: float | int = 1.0
) -> Dialect:
    """HelpSteer: rated replies to one prompt into pairs (`nvidia/HelpSteer`; Wang et al. 2023).

    Args:
        attribute: which of the ratings (0 to 4) decides.
        pairing: "extremes", the best against the worst reply of a prompt; "all", every two that differ enough.
        min_gap: smallest difference of the ratings that counts, above 0.

    Returns:
        The dialect; a prompt with no two replies that differ enough is left out.

    Raises:
        ValueError: where `attribute` is no rating of HelpSteer or `min_gap` is not above 0.

    Example:
        >>> rows = [{"prompt": "Why?", "response": r, "helpfulness": s} for r, s in (("So.", 1), ("Because.", 4))]
        >>> [(_, _, pair)] = helpsteer().gather((n, row, row) for n, row in enumerate(rows))
        >>> pair["chosen"], pair["score_chosen"]
        ('Because.', 4)
    """
    if attribute not in ATTRIBUTES:
        raise ValueError(f"attribute is one of {', '.join(ATTRIBUTES)}; got {attribute!r}")
    if not min_gap > 0:
        raise ValueError(f"min_gap must be above 0, for equal ratings state no preference; got {min_gap}")

    def gather(rows: Iterable[Numbered]) -> Iterator[tuple[int, Any, Row | LeftOut | BadRow]]:
        groups: dict[str, list[tuple[int, Row]]] = {}
        for number, raw, row in rows:
            try:
                if isinstance(row, BadRow):
                    raise row
                text(row, "response"), _number(row, attribute)
                groups.setdefault(text(row, "prompt"), []).append((number, row))
            except BadRow as error:
                yield number, raw, error
        for prompt, group in groups.items():
            ordered = sorted(group, key=lambda item: -item[1][attribute])
            pairs = [(ordered[0], ordered[-1])] if pairing == "extremes" else list(combinations(ordered, 2))
            apart = [(good, bad) for (_, good), (_, bad) in pairs if good[attribute] - bad[attribute] >= min_gap]
            if not apart:
                reason = (
                    "one reply only" if len(group) == 1 else f"replies within {min_gap:g} of each other in {attribute}"
                )
                yield group[0][0], group[0][1], LeftOut(reason)
            for good, bad in apart:
                pair = {"prompt": prompt, "chosen": good["response"], "rejected": bad["response"]}
                scores = dict(zip(_SCORES, (good[attribute], bad[attribute]), strict=True))
                yield group[0][0], [good, bad], extras(good, "response", *ATTRIBUTES) | pair | scores

    def read(pair: Row) -> dict[str, Any]:
        return _triplet(pair, *(pair[field] for field in FIELDS), tuple(pair[score] for score in _SCORES))

    def write(triplet: Triplet) -> list[dict[str, Any]]:
        _, prompt, *replies = single(triplet, "helpsteer")
        rest = extras(triplet, *FIELDS, *_SCORES) | {"prompt": prompt}
        rated = zip(replies, _scores(triplet, "helpsteer"), strict=True)
        return [rest | {"response": reply, attribute: score} for reply, score in rated]

    kinds = {"prompt": str, "response": str, attribute: int | float}
    return Dialect("helpsteer", kinds, read, write, gather=gather)


def shp(min_ratio: float | int = 2.0) -> Dialect:
    """Stanford Human Preferences: two comments on one post, the better voted one preferred (`stanfordnlp/SHP`).

    Args:
        min_ratio: least ratio of the votes; weaker pairs are left out. DPO's authors take 2.

    Returns:
        The dialect.

    Example:
        >>> row = {"history": "Why?", "human_ref_A": "So.", "human_ref_B": "Because.", "labels": 0,
        ...        "score_A": 5, "score_B": 20}
        >>> shp().read(row)["chosen"]
        [{'role': 'assistant', 'content': 'Because.'}]
    """
    used = ("history", "human_ref_A", "human_ref_B", "labels", "score_A", "score_B", "score_ratio")

    def read(row: Row) -> dict[str, Any]:
        if row.get("labels") not in (0, 1):
            raise BadRow("labels", f"is {row.get('labels')!r:.40}; it is 1 where A is preferred, 0 where B is")
        good, bad = ("A", "B") if row["labels"] else ("B", "A")
        scores = _number(row, f"score_{good}"), _number(row, f"score_{bad}")
        if scores[0] < scores[1]:
            raise BadRow("labels", "prefers the comment with fewer votes; mend the row")
        if scores[0] < min_ratio * scores[1]:
            raise LeftOut(f"ratio of the votes below {min_ratio:g}")
        parts = text(row, "history"), text(row, f"human_ref_{good}"), text(row, f"human_ref_{bad}")
        return _triplet(extras(row, *used), *parts, scores)

    def write(triplet: Triplet) -> list[dict[str, Any]]:
        _, prompt, chosen, rejected = single(triplet, "shp")
        good, bad = _scores(triplet, "shp")
        votes = {"labels": 1, "score_A": good, "score_B": bad, "score_ratio": good / bad if bad else None}
        rest = extras(triplet, *FIELDS, *_SCORES)
        return [rest | {"history": prompt, "human_ref_A": chosen, "human_ref_B": rejected} | votes]

    return Dialect("shp", {"history": str, "human_ref_A": str, "human_ref_B": str, "labels": int}, read, write)


def ultrafeedback(
    rejected: Literal["worst", "random"] = "worst", seed: int = 0, exclude: tuple[str, ...] = ()
) -> Dialect:
    """UltraFeedback: the best of the rated completions against the worst or a random other (`openbmb/UltraFeedback`).

    Args:
        rejected: "worst" as App. E.2 has it, or "random" as in the binarized data set on the Hub.
        seed: of the random choice, which depends on the seed and the instruction alone, not on the order of rows.
        exclude: values of the column `source` to leave out; the binarized data set leaves out "truthful_qa".

    Returns:
        The dialect; a row whose two completions are rated alike is left out.

    Raises:
        ValueError: where `rejected` is neither.

    Example:
        >>> row = {"instruction": "Why?", "completions": [{"response": "So.", "overall_score": 3.0},
        ...                                               {"response": "Because.", "overall_score": 8.0}]}
        >>> ultrafeedback().read(row)["score_rejected"]
        3.0
    """
    if rejected not in ("worst", "random"):
        raise ValueError(f"rejected is 'worst' or 'random'; got {rejected!r}")

    def read(row: Row) -> dict[str, Any]:
        if exclude and row.get("source") in exclude:
            raise LeftOut(f"source {row['source']}")
        prompt, rated = text(row, "instruction"), row.get("completions")
        if not isinstance(rated, list) or len(rated) < 2 or not all(isinstance(reply, dict) for reply in rated):
            raise BadRow("completions", "holds fewer than two rated completions; remove the row")
        ordered = sorted(rated, key=lambda reply: -_number(reply, "overall_score"))
        at = len(ordered) - 1
        if rejected == "random":
            digest = hashlib.sha256(f"{seed}/{prompt}".encode("utf-8", "backslashreplace")).digest()
            at = 1 + int.from_bytes(digest[:8], "big") % at
        good, bad = ordered[0], ordered[at]
        if good["overall_score"] == bad["overall_score"]:
            raise LeftOut("completions rated alike")
        replies = text(good, "response"), text(bad, "response")
        return _triplet(
            extras(row, "instruction", "completions"), prompt, *replies, (good["overall_score"], bad["overall_score"])
        )

    def write(triplet: Triplet) -> list[dict[str, Any]]:
        _, prompt, *replies = single(triplet, "ultrafeedback")
        rated = zip(replies, _scores(triplet, "ultrafeedback"), strict=True)
        completions = [{"response": reply, "overall_score": score} for reply, score in rated]
        return [extras(triplet, *FIELDS, *_SCORES) | {"instruction": prompt, "completions": completions}]

    return Dialect("ultrafeedback", {"instruction": str, "completions": list}, read, write)
