"""The scorecard, drawn from `book/claims.yml` and `book/records/`; no count on any page is typed.

Three directives, none with options:
`{claims-summary}` counts verdicts by kind, `{claims-table}` shows every row of the ledger, and `{run-costs}` lists what
the recorded runs cost.
"""

import re
from collections import Counter
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from coala_lib.evidence.claims import ICONS, PAPERS, VERDICTS, Verdict, judge_all
from coala_lib.evidence.ledger import KINDS, Claim, load
from coala_lib.evidence.records import PRESETS, Record, read_all

PLURALS = {kind: kind + "s" for kind in KINDS}
TESTED = [verdict for verdict in VERDICTS if not verdict.startswith(("not tested", "cannot test"))]


def anchor(claim_id: str) -> str:
    """The label of a claim's row: `claim-coala-eq9` for `coala.eq9`."""
    return "claim-" + re.sub(r"[^a-z0-9]+", "-", claim_id.lower())


def plain(text: str, ids: dict[str, str]) -> str:
    """MyST for a ledger text: formulas stay, Markdown marks outside them are escaped, ids become links."""
    parts = re.split(r"(\$[^$]+\$)", text)
    for i in range(0, len(parts), 2):
        escaped = re.sub(r"([\\`*_{}\[\]<>|~#])", r"\\\1", parts[i])
        for claim_id in sorted(ids, key=len, reverse=True):
            pattern = rf"(?<![\w.]){re.escape(claim_id)}(?![\w-]|\.\w)"
            escaped = re.sub(pattern, f"{{ref}}`{claim_id} <{ids[claim_id]}>`", escaped)
        parts[i] = escaped
    return "".join(parts)


class _Drawn(SphinxDirective):
    """What the directives share: reading the ledger and the records, and building tables of MyST cells."""

    def read(self) -> tuple[dict[str, Claim], list[Record], dict[str, Verdict]]:
        book = Path(self.env.srcdir) / "book"
        for path in [book / "claims.yml", *sorted((book / "records").glob("*/*.json"))]:
            self.env.note_dependency(str(path))
        self.env.note_reread()
        claims, records = load(book / "claims.yml"), read_all(book / "records")
        return claims, records, judge_all(claims, records)

    def parse(self, text: str, into: nodes.Element) -> nodes.Element:
        self.state.nested_parse(StringList(text.splitlines(), self.get_source_info()[0]), self.content_offset, into)
        return into

    def chapter(self, slug: str) -> str:
        pages = [page for page in self.env.found_docs if re.fullmatch(rf"notebooks/\d+_{re.escape(slug)}", page)]
        return f"{{doc}}`/{pages[0]}`" if pages else f"`{slug}`"

    def table(self, head: list[str], rows: list[list[str]], widths: list[int], name: str) -> nodes.table:
        def row(cells: list[str]) -> nodes.row:
            return nodes.row("", *(self.parse(cell, nodes.entry()) for cell in cells))

        group = nodes.tgroup("", *(nodes.colspec(colwidth=width) for width in widths), cols=len(widths))
        group += nodes.thead("", row(head))
        group += nodes.tbody("", *(row(cells) for cells in rows))
        return nodes.table("", group, classes=[name])


class ClaimsSummary(_Drawn):
    """One sentence and one table: verdict by kind."""

    def run(self) -> list[nodes.Node]:
        claims, _, verdicts = self.read()
        count = Counter((verdicts[name].verdict, claim.kind) for name, claim in claims.items())

        def total(verdict: str) -> int:
            return sum(count[verdict, kind] for kind in KINDS)

        tested = ", ".join(f"{total(verdict)} {verdict}" for verdict in TESTED if total(verdict))
        text = (
            f"The ledger has **{len(claims)} rows**. "
            f"Runs have tested **{sum(map(total, TESTED))}** of them{': ' + tested if tested else ''}. "
            f"{total('not tested at this scale')} need a larger run than those recorded, "
            f"{total('not tested yet')} are not tested yet, and {total('cannot test')} cannot be tested by any run."
        )
        rows = [
            [f"{ICONS[verdict]} {verdict}", f"**{total(verdict)}**", *(str(count[verdict, kind]) for kind in KINDS)]
            for verdict in VERDICTS
        ]
        kinds = [sum(claim.kind == kind for claim in claims.values()) for kind in KINDS]
        rows.append(["**all rows**", f"**{len(claims)}**", *(f"**{n}**" for n in kinds)])
        head = ["Verdict", "all", *PLURALS.values()]
        sentence = self.parse(text, nodes.container(classes=["claims-sentence"]))
        return [sentence, self.table(head, rows, [4, *[1] * (len(KINDS) + 1)], "claims-summary")]


class ClaimsTable(_Drawn):
    """Every row of the ledger, in sections by paper and kind; each row is a card and a target (`claim-…`)."""

    def run(self) -> list[nodes.Node]:
        claims, _, verdicts = self.read()
        ids = {name: anchor(name) for name in claims}
        sections = []
        for paper, title in PAPERS.items():
            own = [claim for claim in claims.values() if claim.source.paper == paper]
            outer = self.section(title, f"claims-{paper}") if own else None
            for kind in KINDS:
                rows = [claim for claim in own if claim.kind == kind]
                if not rows:
                    continue
                inner = self.section(f"{title}: {PLURALS[kind]} ({len(rows)})", f"claims-{paper}-{kind}")
                inner += [self.card(claim, verdicts[claim.id], ids) for claim in rows]
                outer += inner
            sections += [outer] if own else []
        return sections

    def section(self, title: str, label: str) -> nodes.section:
        label = re.sub(r"[^a-z0-9]+", "-", label)
        return nodes.section("", nodes.title("", title), ids=[label], names=[label])

    def card(self, claim: Claim, verdict: Verdict, ids: dict[str, str]) -> nodes.container:
        label = ids[claim.id]
        std = self.env.get_domain("std")
        std.anonlabels[label] = (self.env.docname, label)
        std.labels[label] = (self.env.docname, label, claim.id)
        lines = [f"`{claim.id}` · {plain(claim.source.where, {})}", plain(claim.statement, ids)]
        lines.append(f"*Our reading.* {plain(claim.finding, ids)}")
        lines.append(f"*Verdict.* **{ICONS[verdict.verdict]} {verdict.verdict}**{self.run_of(claim, verdict)}")
        lines += [
            f"- {'✓' if holds else '✗'} {plain(says, {})}: measured {plain(measured, {})}"
            for says, measured, holds in verdict.reasons
        ]
        lines.append(f":::{{dropdown}} How it is checked\n{plain(claim.check, ids)}\n:::")
        return self.parse("\n\n".join(lines), nodes.container(ids=[label], classes=["claim"]))

    def run_of(self, claim: Claim, verdict: Verdict) -> str:
        parts = [plain(claim.cannot, {})] if claim.cannot else []
        if verdict.verdict == "not tested at this scale":
            parts.append(f"needs the {claim.min_preset} preset")
        if verdict.record:
            parts.append(f"{verdict.record.preset} preset on {plain(verdict.record.device, {})}")
        if claim.chapter:
            parts.append(self.chapter(claim.chapter))
        return "".join(f" · {part}" for part in parts)


class RunCosts(_Drawn):
    """What every recorded run cost."""

    def run(self) -> list[nodes.Node]:
        _, records, _ = self.read()
        if not records:
            return self.parse("No run has been recorded yet.", nodes.container()).children
        rows = []
        for record in sorted(records, key=lambda record: (record.chapter, PRESETS.index(record.preset))):
            compiling = sum(stage.compile for stage in record.seconds.values())
            running = sum(stage.run for stage in record.seconds.values())
            cost = [f"{compiling:.1f}", f"{running:.1f}", f"{record.peak_bytes / 2**30:.2f}"]
            rows.append([self.chapter(record.chapter), record.preset, *cost, plain(record.device, {})])
        head = ["Chapter", "Preset", "Compile (s)", "Run (s)", "Peak memory (GiB)", "Device"]
        return [self.table(head, rows, [4, 1, 1, 1, 1, 3], "run-costs")]


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("claims-summary", ClaimsSummary)
    app.add_directive("claims-table", ClaimsTable)
    app.add_directive("run-costs", RunCosts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
