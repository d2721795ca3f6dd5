"""A preset is a set of differences from the parameters cell; whatever does not fit is refused before anything starts.

`notebooks/presets/<preset>.yml` holds, by chapter, only the values that differ. `notebooks/presets/schema.yml` holds,
by chapter, a JSON Schema whose `properties` are the parameters. A preset may spread one chapter over a grid:

    phase_one: {n_pairs: 64, grid: {seed: [0, 1, 2]}}
"""

import difflib
import itertools
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from jsonschema.validators import extend

from coala_lib.workflow import chapters
from coala_lib.workflow.chapters import Chapter
from coala_lib.workflow.errors import UsageError

PRESETS = ("smoke", "laptop", "gpu", "paper")
OFFLINE = ("smoke", "laptop")
_PRESET_RULE = {"enum": list(PRESETS)}


def _is_integer(_: Any, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(_: Any, value: Any) -> bool:
    return _is_integer(_, value) or (isinstance(value, float) and math.isfinite(value))


# JSON Schema takes 3.0 for an integer and lets NaN pass every bound; a parameter must be what it says.
_Validator = extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine_many({"integer": _is_integer, "number": _is_number}),
)


class _Loader(yaml.SafeLoader):
    """YAML without two traps: a key given twice is an error, and 1e-3 is a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is given twice", node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def load(root: Path, name: str) -> dict[str, dict[str, Any]]:
    """Read `notebooks/presets/<name>.yml`: a mapping from chapter to a mapping.

    Raises:
        UsageError: where the file is missing, not of that shape, or names a chapter that does not exist.
    """
    path = root / "notebooks" / "presets" / f"{name}.yml"
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader) or {}
    except FileNotFoundError:
        raise UsageError(f"{path} is missing; restore it or choose another preset.") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise UsageError(f"{path}, line {line}: {error.problem}; correct it.") from error
    if not isinstance(content, dict) or not all(isinstance(values, dict) for values in content.values()):
        raise UsageError(f"{path} must map each chapter to its parameters, as in `slug: {{seed: 1}}`.")
    slugs = [chapter.slug for chapter in chapters.find(root)]
    for slug in content:
        if slug not in slugs:
            raise UsageError(f"{path} names the chapter {slug!r}, which does not exist{_suggest(slug, slugs)}.")
    return content


def points(root: Path, chapter: Chapter, preset: str) -> list[dict[str, Any]]:
    """The grid of a chapter in a preset: one set of overrides a point, `[{}]` where there is no grid.

    Raises:
        UsageError: for an unknown preset, or a grid that is not a mapping from names to non-empty lists.
    """
    _check_preset(preset)
    grid = load(root, preset).get(chapter.slug, {}).get("grid", {})
    if not isinstance(grid, dict) or not all(isinstance(values, list) and values for values in grid.values()):
        raise UsageError(f"the grid of {chapter.slug} in presets/{preset}.yml must map names to lists of values.")
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def resolve(chapter: Chapter, preset: str, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The parameters of one run: those of the cell, then the preset's, then the overrides.

    Args:
        chapter: the chapter.
        preset: one of `PRESETS`.
        overrides: further values, by name.

    Returns:
        Name -> value, for every name of the parameters cell.

    Raises:
        UsageError: for whatever is unknown, missing, of the wrong type or out of range.
    """
    _check_preset(preset)
    standing = chapters.parameters(chapter, chapters.read(chapter))
    rules = {"preset": _PRESET_RULE, **load(chapter.root, "schema").get(chapter.slug, {}).get("properties", {})}
    for name in standing.keys() - rules.keys():
        raise UsageError(f"parameter `{name}` of {chapter.slug} has no rule in presets/schema.yml; add one there.")
    for name in rules.keys() - standing.keys():
        raise UsageError(
            f"parameter `{name}`, which presets/schema.yml has a rule for, is missing in the parameters cell of "
            f"{chapter.path}; add it there."
        )
    chosen = {key: value for key, value in load(chapter.root, preset).get(chapter.slug, {}).items() if key != "grid"}
    sources = {f"presets/{preset}.yml": chosen, "the request": overrides or {}}
    where = dict.fromkeys(standing, "its parameters cell")
    for source, values in sources.items():
        for name in values:
            if name == "preset":
                raise UsageError(f"{source} sets `preset` for {chapter.slug}; choose the preset by --preset instead.")
            if name not in standing:
                known = _suggest(name, list(standing))
                raise UsageError(f"{source} sets `{name}`, which chapter {chapter.slug} does not have{known}.")
            where[name] = source
    resolved = {**standing, **chosen, **(overrides or {}), "preset": preset}
    for name, value in resolved.items():
        error = best_match(_Validator(rules[name]).iter_errors(value))
        if error:
            raise UsageError(
                f"`{name}` of {chapter.slug} does not fit: {error.message} (from {where[name]}; "
                f"presets/schema.yml says {_describe(rules[name])})."
            )
    return resolved


def parse_overrides(pairs: list[str]) -> dict[str, Any]:
    """Read `name=value` pairs as YAML scalars.

    Raises:
        UsageError: where a pair lacks its name or value, or a name is given twice.

    Example:
        >>> parse_overrides(["seed=3", "reg=1e-3", "loss=squared"])
        {'seed': 3, 'reg': 0.001, 'loss': 'squared'}
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if not name or not value:
            raise UsageError(f"-p {pair!r} is not of the form name=value; write for instance -p seed=1.")
        if name in found:
            raise UsageError(f"-p gives `{name}` twice; give it once.")
        try:
            found[name] = yaml.load(value, _Loader)
        except yaml.YAMLError as error:
            raise UsageError(f"-p {pair!r} cannot be read: its value is no plain number, word or list.") from error
    return found


def _check_preset(preset: str) -> None:
    if preset not in PRESETS:
        raise UsageError(f"there is no preset {preset!r}; choose one of: {', '.join(PRESETS)}.")


def _suggest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(str(name), known, n=1)
    return f" (did you mean `{close[0]}`?)" if close else f" (known: {', '.join(known) or 'none yet'})"


def _describe(rule: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in rule.items())
