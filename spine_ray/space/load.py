"""Reads a space by its name or file, with what the sample and the command line say on top."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spine_ray.space.fields import as_number, read_field
from spine_ray.space.keys import STUDY_KEYS, Raw, as_list, assign, check_keys, closest, tier_levels
from spine_ray.space.schema import Space, TierSpace
from spine_ray.space.stand_ins import StandIn, spaces_folder
from spine_ray.space.strict_yaml import read_yaml

_WEIGHTS_WORDS = ("auto", "pretrained", "random")


def load_space(name_or_file: str, *, sets: Sequence[str] = (), sample: Mapping[str, object] | None = None) -> Space:
    """Return the space of that name, or the one in that file, resolved.

    Args:
        name_or_file: A name in `spaces_folder()`, or a path that ends in `.yaml` or `.yml`.
        sets: `KEY=VALUE` as typed after `--set`: a dotted key, and a value in YAML. Without `tiers.` in front a
            key holds in all tiers, whatever they say. The last word of all.
        sample: Dotted keys and values that the built-in sample data brings; they replace the file's everywhere.

    Raises:
        ValueError: If there is no such space, or it says something that is not allowed; one line.
    """
    file = find_space(name_or_file)
    try:
        raw = check_keys(read_yaml(file.read_text(encoding="utf-8")))
        for key, value in (sample or {}).items():
            raw = assign(raw, key, value)
        for text in sets:
            raw = _apply(raw, text)
        return _build_space(raw, file)
    except ValueError as error:
        raise ValueError(f"{file.name}: {error}") from error


def find_space(name_or_file: str) -> Path:
    """Return the file of a space.

    Raises:
        ValueError: If there is none, naming those that exist.
    """
    if name_or_file.endswith((".yaml", ".yml")):
        file = Path(name_or_file)
        if not file.is_file():
            raise ValueError(f"there is no space file {name_or_file}")
        return file.resolve()
    known = space_names()
    if name_or_file in known:
        return spaces_folder() / f"{name_or_file}.yaml"
    near = closest(name_or_file, known)
    hint = f" (did you mean {near}?)" if near else ""
    raise ValueError(f"unknown space {name_or_file!r}{hint}; available: {', '.join(known)}, or a path to a .yaml file")


def space_names() -> tuple[str, ...]:
    """Return the names of the spaces that come along, sorted."""
    return tuple(sorted(file.stem for file in spaces_folder().glob("*.yaml")))


def drop_frozen(space: Space, *, sets: Sequence[str] = ()) -> tuple[Space, tuple[str, ...]]:
    """Return the space without freeze depths above 0, for random weights, and the reasons, one line a tier.

    A frozen part with random weights is noise that nothing ever trains. A tier whose freeze depths were asked
    for with `--set` keeps them.

    Args:
        space: What `load_space` returned.
        sets: The same `KEY=VALUE` texts that it was given.
    """
    asked = {text.partition("=")[0].strip() for text in sets}
    tiers: list[TierSpace] = []
    reasons: list[str] = []
    for tier in space.tiers:
        frozen = [freeze for freeze in tier.freezes if freeze > 0]
        if frozen and not asked & {"freeze", f"tiers.{tier.name}.freeze"}:
            kept = tuple(freeze for freeze in tier.freezes if freeze == 0) or (0.0,)
            tier = replace(tier, freezes=kept)
            reasons.append(
                f"tier {tier.name}: freeze {', '.join(map(str, frozen))} dropped, because with random weights "
                "the frozen part would stay noise (--set freeze=... asks for it)"
            )
        tiers.append(tier)
    return replace(space, tiers=tuple(tiers)), tuple(reasons)


def with_stand_ins(tier: TierSpace, stand_ins: Sequence[StandIn]) -> TierSpace:
    """Return a tier that searches stand-ins; what it says of its own backbones alone goes with these."""
    return replace(tier, backbones=tuple(row.backbone for row in stand_ins), overrides={})


def _apply(raw: Raw, text: str) -> Raw:
    key, separator, value = text.partition("=")
    if not separator or not key.strip():
        raise ValueError(f"--set takes KEY=VALUE, such as recipe.epochs=3, not {text!r}")
    try:
        return assign(raw, key.strip(), read_yaml(value))
    except ValueError as error:
        raise ValueError(f"--set {text}: {error}") from error


def _build_space(raw: Raw, file: Path) -> Space:
    given: dict[str, Any] = {key: raw[key] for key in (*STUDY_KEYS, "question") if key in raw}
    for key in ("test_share", "min_effect", "max_collapsed_share"):
        if key in given:
            given[key] = as_number(key, given[key])
    if given.get("budget") is not None:
        given["budget"] = str(given["budget"])
    weights = given.get("weights")
    if isinstance(weights, str) and weights and weights not in _WEIGHTS_WORDS:
        given["weights"] = str((file.parent / weights).resolve())
    levels = tier_levels(raw)
    first = next(iter(levels))
    if raw.get("tiers", {}).get(first, {}).get("gate") == "never":
        raise ValueError(f"tiers.{first}.gate: no gate stands before the first tier")
    tiers = [_build_tier(name, level) for name, level in levels.items()]
    tiers[0] = replace(tiers[0], gate="always")
    return Space(name=raw.get("name", file.stem), file=file, tiers=tuple(tiers), **given)


def _build_tier(name: str, level: Raw) -> TierSpace:
    try:
        given: dict[str, Any] = {key: level[key] for key in ("trials", "gate", "question") if key in level}
        if "resolution" in level:
            given["resolutions"] = tuple(as_list(level["resolution"]))
        if "freeze" in level:
            given["freezes"] = tuple(as_number("freeze", freeze) for freeze in as_list(level["freeze"]))
        recipe = {field: _read("recipe", field, value) for field, value in level.get("recipe", {}).items()}
        overrides = {
            backbone: {field: _read("overrides", field, value) for field, value in values.items()}
            for backbone, values in level.get("overrides", {}).items()
        }
        backbones = tuple(as_list(level.get("backbone", [])))
        return TierSpace(name=name, backbones=backbones, recipe=recipe, overrides=overrides, **given)
    except ValueError as error:
        raise ValueError(f"tier {name}: {error}") from error


def _read(where: str, field: str, value: object) -> Any:
    try:
        return read_field(field, value)
    except ValueError as error:
        raise ValueError(f"{where}.{field}: {error}") from error
