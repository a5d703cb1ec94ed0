"""The keys of a space file: which exist at which level, and how one of them is set from outside."""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

from rapidfuzz import process

from spine_ray.space.config import RECIPE_FIELDS

TIER_KEYS = ("question", "backbone", "resolution", "freeze", "recipe", "overrides", "trials", "gate")
STUDY_KEYS = (
    "metric", "cost_matrix", "folds", "test_share", "min_effect", "max_collapsed_share", "small_data", "max_members",
    "max_per_family", "reduction", "weights", "budget", "audit",
)  # fmt: skip
AUDIT_KEYS = (
    "unreadable", "near_duplicate", "near_shift", "crowd", "rows_per_fold", "imbalance", "upsampled", "shortcut",
)  # fmt: skip
"""The thresholds of the data audit; what they mean and start from stands where the data is judged."""
SPACE_KEYS = ("name", *STUDY_KEYS, "tier", "tiers", *TIER_KEYS)

Raw = dict[str, Any]


def closest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that a misspelt one most likely means, or None."""
    match = process.extractOne(name, list(known), score_cutoff=65)
    return match[0] if match else None


def check_names(given: Iterable[object], allowed: Sequence[str], where: str) -> None:
    """Refuse names that are not allowed at this level.

    Raises:
        ValueError: Naming the first unknown one, the nearest allowed one and all of them.
    """
    for name in given:
        if name not in allowed:
            near = closest(str(name), allowed)
            hint = f" (did you mean {near}?)" if near else ""
            raise ValueError(f"{where} has no key {name!r}{hint}; allowed: {', '.join(allowed)}")


def check_keys(raw: object) -> Raw:
    """Return a space file's values when all their keys exist and nest as they should.

    Raises:
        ValueError: For an unknown key, or a level that is no mapping.
    """
    space = _mapping(raw, "a space file")
    check_names(space, SPACE_KEYS, "a space")
    _check_level(space, "")
    check_names(_mapping(space.get("audit", {}), "audit"), AUDIT_KEYS, "audit")
    if "tiers" in space:
        if "tier" in space:
            raise ValueError("tier names the only tier of a space, so it cannot stand beside tiers")
        for name, level in _mapping(space["tiers"], "tiers").items():
            check_names(_mapping(level, f"tiers.{name}"), TIER_KEYS, f"tiers.{name}")
            _check_level(level, f"tiers.{name}.")
    return space


def assign(space: Raw, key: str, value: object) -> Raw:
    """Return a copy of the space's values in which one dotted key has a new value.

    A key that begins with `tiers.` is set in that tier alone. Any other is set for the space and taken out of
    the tiers, so that it holds in all of them.

    Args:
        space: Values that `check_keys` returned. Not modified.
        key: Such as `trials`, `recipe.epochs`, `overrides.BACKBONE.lr` or `tiers.mid.gate`.
        value: Plain values, as in a file.

    Raises:
        ValueError: If there is no such key.
    """
    result = deepcopy(space)
    head, _, rest = key.partition(".")
    if head == "tiers" and rest:
        tier, _, inner = rest.partition(".")
        if tier not in result.get("tiers", {}):
            known = ", ".join(result.get("tiers", {})) or "none, it is a single tier"
            raise ValueError(f"the space has no tier {tier!r}; its tiers: {known}")
        _put(result["tiers"][tier], _path(inner, TIER_KEYS, f"tiers.{tier}"), deepcopy(value))
        return check_keys(result)
    path = _path(key, SPACE_KEYS, "a space")
    if head in TIER_KEYS:
        for level in result.get("tiers", {}).values():
            _remove(level, path)
    _put(result, path, deepcopy(value))
    return check_keys(result)


def tier_levels(space: Raw) -> dict[str, Raw]:
    """Return each tier's values, with what it inherits from the space filled in.

    `recipe` and `overrides` are merged key by key; overrides reach the tiers that hold the backbone.

    Raises:
        ValueError: If there are no tiers, or an override is for a backbone that no tier holds.
    """
    shared = {key: space[key] for key in TIER_KEYS if key in space}
    if "tiers" not in space:
        return {space.get("tier", "single"): shared}
    if not space["tiers"]:
        raise ValueError("tiers names no tier")
    levels = {name: _inherit(shared, own) for name, own in space["tiers"].items()}
    held = [name for level in levels.values() for name in as_list(level.get("backbone", []))]
    for backbone in shared.get("overrides", {}):
        if backbone not in held:
            raise ValueError(f"overrides: no tier holds the backbone {backbone}")
    return levels


def as_list(raw: object) -> list[Any]:
    """Return a list as it is and a single value as a list of one."""
    return list(raw) if isinstance(raw, (list, tuple)) else [raw]


def _inherit(shared: Raw, own: Raw) -> Raw:
    level = {**shared, **own}
    held = as_list(level.get("backbone", []))
    recipe = {**shared.get("recipe", {}), **own.get("recipe", {})}
    overrides = {name: dict(values) for name, values in shared.get("overrides", {}).items() if name in held}
    for name, values in own.get("overrides", {}).items():
        overrides[name] = {**overrides.get(name, {}), **values}
    return {**level, "recipe": recipe, "overrides": overrides}


def _check_level(level: Mapping[str, object], where: str) -> None:
    recipe = _mapping(level.get("recipe", {}), f"{where}recipe")
    check_names(recipe, RECIPE_FIELDS, f"{where}recipe")
    for backbone, values in _mapping(level.get("overrides", {}), f"{where}overrides").items():
        at = f"{where}overrides.{backbone}"
        check_names(_mapping(values, at), RECIPE_FIELDS, at)


def _mapping(raw: object, what: str) -> Raw:
    if not isinstance(raw, dict):
        raise ValueError(f"{what} must be a mapping of keys to values, not {raw!r}")
    return raw


def _path(key: str, allowed: Sequence[str], where: str) -> tuple[str, ...]:
    head, _, rest = key.partition(".")
    check_names([head], allowed, where)
    if not rest:
        return (head,)
    if head == "recipe":
        check_names([rest], RECIPE_FIELDS, "recipe")
        return head, rest
    if head == "audit":
        check_names([rest], AUDIT_KEYS, "audit")
        return head, rest
    if head == "overrides":
        # The names of backbones hold dots themselves: only the last part can be a recipe field.
        backbone, _, field = rest.rpartition(".")
        return (head, backbone, field) if backbone and field in RECIPE_FIELDS else (head, rest)
    raise ValueError(f"{head} is a single value: {key!r} has nothing to set")


def _put(level: Raw, path: tuple[str, ...], value: object) -> None:
    for name in path[:-1]:
        level = level.setdefault(name, {})
    level[path[-1]] = value


def _remove(level: Raw, path: tuple[str, ...]) -> None:
    for name in path[:-1]:
        level = level.get(name, {})
    level.pop(path[-1], None)
