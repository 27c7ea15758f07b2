"""Recipes: flat, complete YAML files, dotted overrides, and errors that name the file, the key and the nearest name."""

import difflib
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from data_pipeline.config import BadInput, Config
from data_pipeline.redaction import redact_values

MOST_NAMED = 30
"""Names that are listed where none is near."""

RECIPES = Path(__file__).parent / "recipes"

C = TypeVar("C", bound=Config)


def recipe_names() -> list[str]:
    """The recipes that come with the package, by name."""
    return sorted(path.stem for path in RECIPES.rglob("*.yaml"))


def recipe_path(name: str) -> Path:
    """The file of a recipe: a path to a YAML file, or the name of one that comes with the package."""
    given = Path(name)
    if given.suffix in {".yaml", ".yml"}:
        if given.is_file():
            return given
        raise BadInput(f"recipe {name}: there is no such file")
    for path in RECIPES.rglob("*.yaml"):
        if path.stem == name:
            return path
    raise BadInput(f"recipe {name!r}: not a YAML file, and no recipe has this name{nearest(name, recipe_names())}")


def load(kind: type[C], path: Path, overrides: Sequence[str] = ()) -> C:
    """Read `path` as a `kind`, with `key.path=value` overrides (values in YAML); BadInput says all that is wrong."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise BadInput(f"{path}: is not valid YAML: {error}") from error
    if not isinstance(values, dict):
        raise BadInput(f"{path}: a recipe is a mapping of keys to values, this is {type(values).__name__}")
    changed = deepcopy(values)
    for override in overrides:
        _leave_to_kind(kind, changed, override)
    for override in overrides:
        _override(changed, override)
    try:
        return kind.model_validate(changed)
    except ValidationError as error:
        file = str(path) if _is_wrong(kind, values) else f"with {' '.join(overrides)}"
        raise _bad_input(kind, error, lambda key: _override_of(key, overrides) or file) from error


def parse(kind: type[C], values: dict[str, Any], *, source: str) -> C:
    """Validate plain values as a `kind`; `source` stands first in each message."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise _bad_input(kind, error, lambda _: source) from error


def dump(config: Config) -> str:
    """YAML that `load` reads back as an equal value, but for secrets, which are left out."""
    return yaml.safe_dump(redact_values(config.model_dump(mode="json")), sort_keys=False, width=120)


def differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (old, new) of every leaf that differs; an absent leaf is None."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in [*old, *(key for key in new if key not in old)]:
        before, after, path = old.get(key), new.get(key), f"{prefix}{key}"
        if isinstance(before, dict) and isinstance(after, dict):
            found |= differences(before, after, f"{path}.")
        elif before != after:
            found[path] = (before, after)
    return found


def _override(values: dict[str, Any], override: str) -> None:
    path, separator, text = override.partition("=")
    if not separator or not path:
        raise BadInput(f"override {override!r}: write key.path=value, for example model.num_layers=12")
    *parents, last = path.split(".")
    for parent in parents:
        child = values.setdefault(parent, {})
        if not isinstance(child, dict):
            raise BadInput(f"override {override!r}: {parent!r} is a single value, it has no {last!r} inside")
        values = child
    try:
        values[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadInput(f"override {override!r}: {text!r} is not a YAML value") from error


def _leave_to_kind(kind: type[BaseModel], values: dict[str, Any], override: str) -> None:
    """Where an override gives a mapping another `kind`, leave out the keys that this kind has not got."""
    path, _, tag = override.partition("=")
    *location, last = path.split(".")
    inner: Any = values
    for part in location:
        inner = inner.get(part) if isinstance(inner, dict) else None
    known = _keys_at(kind, [*location, tag])
    if last == "kind" and isinstance(inner, dict) and inner.get("kind") not in (None, tag) and "kind" in known:
        for key in [key for key in inner if key not in known]:
            del inner[key]


def _is_wrong(kind: type[Config], values: dict[str, Any]) -> bool:
    try:
        kind.model_validate(values)
    except ValidationError:
        return True
    return False


def _override_of(key: str, overrides: Sequence[str]) -> str | None:
    """The last override that set this dotted key, or what holds it, or its kind."""
    for override in reversed(overrides):
        path = override.partition("=")[0]
        if key and (path in (key, f"{key}.kind") or key.startswith(f"{path}.")):
            return f"override {override!r}"
    return None


def _bad_input(kind: type[BaseModel], error: ValidationError, source: Callable[[str], str]) -> BadInput:
    """A line for each thing that is wrong; `source` says by its dotted key where it was given."""
    lines = []
    for detail in error.errors(include_url=False):
        key = ".".join(_parts(kind, detail["loc"]))
        lines.append(f"{source(key)}: {_explain(kind, detail)}")
    return BadInput("\n".join(lines))


def _parts(kind: type[BaseModel], location: Sequence[Any]) -> list[str]:
    """Of the dotted key: without the kinds that only say which member of a union it was."""
    return [str(part) for part in location if not _is_union_tag(kind, location, part)]


def _explain(kind: type[BaseModel], detail: Any) -> str:
    where = _parts(kind, detail["loc"])
    dotted = ".".join(where)
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        known = sorted(_keys_at(kind, detail["loc"][:-1]))
        return f"{dotted}: there is no such key{nearest(where[-1], known)}"
    if detail["type"] == "union_tag_invalid":
        context = detail["ctx"]
        return f"{dotted}.kind: must be one of {context['expected_tags']}, but it is {context['tag']!r}"
    if detail["type"] == "missing":
        return f"{dotted}: this key is required"
    given = "" if isinstance(detail["input"], dict) else f", but it is {_short(detail['input'])}"
    return f"{dotted}: {message}{given}" if dotted else message


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def nearest(name: str, known: Iterable[str]) -> str:
    """To follow `there is no such key`: the known name that is meant, or all where none is near."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    if names == ["kind"]:
        return "; what is of this kind has none but its kind"
    return f"; there are {', '.join(names)}" if 0 < len(names) <= MOST_NAMED else ""


def _members(annotation: Any) -> list[type[BaseModel]]:
    """All configuration classes that an annotation mentions."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [member for argument in get_args(annotation) for member in _members(argument)]


def _tag(member: type[BaseModel]) -> str | None:
    field = member.model_fields.get("kind")
    return str(get_args(field.annotation)[0]) if field and get_args(field.annotation) else None


def _descend(classes: list[type[BaseModel]], location: Sequence[Any]) -> list[type[BaseModel]]:
    is_any_name = False  # the next part is a key of a mapping
    for part in location:
        if is_any_name:
            is_any_name = False
            continue
        tagged = [member for member in classes if _tag(member) == part]
        if tagged:
            classes = tagged
        elif isinstance(part, str):
            fields = [member.model_fields[part] for member in classes if part in member.model_fields]
            is_any_name = any(get_origin(field.annotation) is dict for field in fields)
            classes = [found for field in fields for found in _members(field.annotation)]
    return classes


def _keys_at(kind: type[BaseModel], location: Sequence[Any]) -> set[str]:
    return {name for member in _descend([kind], location) for name in member.model_fields}


def _is_union_tag(kind: type[BaseModel], location: Sequence[Any], part: Any) -> bool:
    index = list(location).index(part)
    members = _descend([kind], location[:index])
    return any(_tag(member) == part for member in members) and part not in {
        name for member in members for name in member.model_fields
    }
