"""The registry of the papers' data sets: Hub ids, pinned commits, columns, and the counts the papers state.

A revision is pinned where its commit is public and known to us; elsewhere it is `main`, and the commit that `main`
meant is recorded with what was read.

Differs from the paper: App. E.2 counts 60,917 rows of UltraFeedback-Binarized. The card of
HuggingFaceH4/ultrafeedback_binarized states 61,135 (`train_prefs`); 60,917 is what the card of
argilla/ultrafeedback-binarized-preferences-cleaned states. The paper's text does not settle which one was used.
The abstract counts 23,228 conversations of EduFeedback, every other place 26,621.
"""

from dataclasses import dataclass, field

EDU, IMDB = "miria0/EduFeedback", "stanfordnlp/imdb"


@dataclass(frozen=True)
class HubSource:
    """A data set on the Hub.

    Attributes:
        hub_id: its name there.
        split: the split the papers train on.
        columns: what must be there, or the schema has moved; empty where the card states none.
        dialect: how its pairs are written; None tells it from the columns.
        revision: the pinned commit, or "main" where none is known to us.
        published: what is counted -> the number in the papers.
        where: where the papers say so.
    """

    hub_id: str
    split: str
    columns: tuple[str, ...] = ()
    dialect: str | None = None
    revision: str = "main"
    published: dict[str, int] = field(default_factory=dict)
    where: str = ""


SOURCES: dict[str, HubSource] = {
    source.hub_id: source
    for source in (
        HubSource(EDU, "train", published={"conversations": 26_621, "triplets": 65_606}, where="App. E.2"),
        HubSource(
            "HuggingFaceH4/ultrafeedback_binarized", "train_prefs", ("prompt", "chosen", "rejected"), "handbook",
            "3949bf5f8c17c394422ccfab0c31ea9c20bdeb85", {"rows": 60_917}, "App. E.2",
        ),
        # the commit that the binarized data set was made from, with the corrected overall scores
        HubSource(
            "openbmb/UltraFeedback", "train", ("instruction", "completions"), "ultrafeedback",
            "40b436560ca83a8dba36114c22ab3c66e43f6d5e", {"rows": 64_000}, "App. E.2",
        ),
        HubSource(
            IMDB, "train", ("text", "label"), None,
            "e6281661ce1c48d982bc483cf8a173c1bbeb5d31", {"triplets": 11_000}, "App. E.2",
        ),
        HubSource(
            "nvidia/HelpSteer", "train", ("prompt", "response", "helpfulness"), "helpsteer",
            "4d715889bb2581702d73cd98e58162e7b90e569b",
        ),
        HubSource("stanfordnlp/SHP", "train", ("history", "human_ref_A", "human_ref_B", "labels"), "shp"),
    )
}  # fmt: skip
