"""A throw-away book: two tiny chapters over a tiny library, in a folder of its own."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

CHAPTER = """---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
    format_version: 0.13
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---

(ch-{slug})=
# A toy

```{{code-cell}} ipython3
:tags: [parameters]

preset = "laptop"
seed = 0
reg = 0.5
```

Prose.

```{{code-cell}} ipython3
import sys
import time

from coala_lib.{module} import answer, write_record

print("answer", answer(seed, reg))
print("noise", file=sys.stderr)
object()
```

```{{code-cell}} ipython3
:tags: [volatile]

print(time.time_ns())
write_record("{slug}", {{"preset": preset, "seed": seed, "reg": reg}})
```
"""

SHARED = '''"""What both toys use."""

import json
import os
import time
from pathlib import Path


def write_record(slug, parameters):
    record = {
        "chapter": slug, "preset": parameters["preset"], "parameters": parameters, "device": "cpu",
        "code_hash": os.environ["COALA_CODE_HASH"], "started": time.time_ns(), "peak_bytes": 1,
        "seconds": {"all": {"compile": 0.0, "run": 1.0}},
        "metrics": {"answer": {"value": parameters["seed"], "unit": "1"}, "wall": {"value": time.time(), "unit": "s"}},
        "curves": {},
    }
    Path(os.environ["COALA_RECORD"]).write_text(json.dumps(record))
'''

MODULE = '''"""A toy."""

from coala_lib.shared import write_record as write_record


def answer(seed, reg):
    return seed + reg
'''

SCHEMA = """alpha: &rules
  type: object
  additionalProperties: false
  properties:
    seed: {type: integer, minimum: 0}
    reg: {type: number, minimum: 0, maximum: 1}
beta: *rules
"""


@dataclass(frozen=True)
class Toy:
    """The throw-away book and how to command it."""

    root: Path

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a workflow command in the book."""
        return subprocess.run(self.argv(*arguments), **self.surroundings(), capture_output=True, text=True)

    def argv(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "coala_lib.workflow", *arguments]

    def surroundings(self) -> dict:
        return {"cwd": self.root, "env": {**os.environ, "PYTHONPATH": str(self.root)}}

    def edit(self, name: str, old: str, new: str) -> None:
        """Replace text that must be there."""
        path = self.root / name
        content = path.read_text()
        assert old in content, (name, old)
        path.write_text(content.replace(old, new))

    def bytes_of(self, *names: str) -> list[bytes]:
        return [(self.root / name).read_bytes() for name in names]


@pytest.fixture
def toy(tmp_path: Path) -> Toy:
    """A fresh throw-away book."""
    library, notebooks = tmp_path / "coala_lib", tmp_path / "notebooks"
    shutil.copytree(ROOT / "coala_lib" / "workflow", library / "workflow", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__init__.py", "_files.py"):
        shutil.copy(ROOT / "coala_lib" / name, library)
    shutil.copy(ROOT / "Snakefile", tmp_path)
    (library / "shared.py").write_text(SHARED)
    (notebooks / "presets").mkdir(parents=True)
    for number, slug in enumerate(("alpha", "beta"), start=1):
        (library / f"{slug}.py").write_text(MODULE)
        (notebooks / f"0{number}_{slug}.md").write_text(CHAPTER.format(slug=slug, module=slug))
    shutil.copy(ROOT / "notebooks" / "jupytext.toml", notebooks)
    (notebooks / "presets" / "schema.yml").write_text(SCHEMA)
    for preset in ("laptop", "gpu", "paper"):
        (notebooks / "presets" / f"{preset}.yml").write_text("{}\n")
    (notebooks / "presets" / "smoke.yml").write_text("alpha: {reg: 0.25}\nbeta: {grid: {seed: [1, 2]}}\n")
    return Toy(tmp_path)
