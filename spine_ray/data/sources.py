"""Opens what the user calls the data: a folder of class folders, a table of pictures, or the built-in sample."""

from pathlib import Path, PurePosixPath
from typing import Any

from spine_ray.data.albums import PICTURE_SUFFIXES, is_picture
from spine_ray.data.digits import digits_source
from spine_ray.data.places import LEAVES, Place, is_file
from spine_ray.data.rows import FileReader, Row, Source, Split
from spine_ray.data.tables import csv_source, parquet_source

SPLIT_FOLDERS: dict[str, Split] = {"train": "dev", "test": "test"}
ARCHIVE_SUFFIXES = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
ALLOWED = "a folder of class folders, a .csv or a .parquet"


def open_source(data: str | None = None, root: Path | None = None) -> Source:
    """Open the data that the user named; no picture is read yet.

    Args:
        data: A folder of class folders (optionally under `train/` and `test/`), a CSV or Parquet table, any of these
            at a URI that fsspec opens; None, or `digits` where no folder has that name, for the built-in sample.
        root: A local folder that pictures may lie in; None for the data's own. What leaves it is refused.

    Returns:
        The rows in a stable order, with a way to their bytes.

    Raises:
        ValueError: If there is nothing at that place, or it is not one of the allowed kinds and forms.
    """
    if data is None or (data == "digits" and not Path(data).is_dir()):
        return digits_source()
    place, allowed = Place.of(data), None if root is None else _root(root)
    fs, path = place.open()
    # Files first: asked for a folder, a file system over HTTP would fetch the whole table to look for links.
    if not fs.isfile(path):
        if fs.isdir(path or "/"):
            return folder_source(data, place, allowed)
        raise ValueError(f"there is nothing at {data!r}: data must be {ALLOWED}")
    suffix = PurePosixPath(path).suffix.lower()
    if suffix == ".csv":
        return csv_source(data, place, allowed)
    if suffix == ".parquet":
        return parquet_source(data, place, allowed)
    if suffix in ARCHIVE_SUFFIXES:
        raise ValueError(f"cannot read {data!r}: archives are not unpacked here; unpack it and name the folder")
    raise ValueError(f"cannot read {data!r}: data must be {ALLOWED}, not a file of type {suffix or 'unknown'!r}")


def folder_source(name: str, place: Place, root: Place | None = None) -> Source:
    """Open a folder of class folders; pictures may lie deeper inside them.

    Hidden files and folders are passed over. Where `train/` holds folders of pictures, it and `test/` are splits;
    else they are classes like any other.

    Raises:
        ValueError: If there are no pictures in class folders, folders beside `train/` and `test/` hold pictures, or a
            link leaves the folder.
    """
    files = _visible_files(name, place)
    pictures = [path for path in files if is_picture(path)]
    is_split = _is_split(pictures)
    rows = tuple(_folder_row(path, is_split=is_split) for path in pictures if path.count("/") >= 1 + is_split)
    if not rows:
        found = "its pictures lie in no class folder" if pictures else "it holds no pictures"
        raise ValueError(f"{name}: {found}; expected class folders with {' '.join(PICTURE_SUFFIXES)}")
    outside = sorted({path.partition("/")[0] for path in pictures if "/" in path} - set(SPLIT_FOLDERS))
    if is_split and outside:
        raise ValueError(
            f"{name} holds {', '.join(f'{folder}/' for folder in outside)} beside train/: "
            "allowed are train/ and test/ with class folders in them, or class folders alone"
        )
    leaving = place.first_leaving((row.path for row in rows), root)
    if leaving is not None:
        raise ValueError(f"{name}: {leaving!r} {LEAVES}")
    used = {row.path for row in rows}
    skipped = tuple(path for path in files if path not in used)
    return Source(name=name, kind="folder", rows=rows, reader=FileReader(folder=place), skipped=skipped)


def _root(folder: Path) -> Place:
    if not folder.is_dir():
        raise ValueError(f"--data-root {folder} is not a folder")
    return Place.of(str(folder))


def _visible_files(name: str, place: Place) -> list[str]:
    """Relative paths of all files but hidden ones, sorted."""
    fs, root = place.open()
    found: dict[str, Any] = fs.find(root, detail=True)
    paths = []
    for full, entry in found.items():
        path = full[len(root) :].lstrip("/")
        if any(part.startswith(".") for part in path.split("/")):
            continue
        if entry.get("islink") and fs.isdir(full):
            raise ValueError(f"{name}: {path} is a link to a folder, which is not followed; name real folders")
        if is_file(entry):
            paths.append(path)
    return sorted(paths)


def _is_split(pictures: list[str]) -> bool:
    return any(path.startswith("train/") and path.count("/") >= 2 for path in pictures)


def _folder_row(path: str, *, is_split: bool) -> Row:
    parts = path.split("/")
    if is_split:
        return Row(path=path, class_name=parts[1], split=SPLIT_FOLDERS.get(parts[0]))
    return Row(path=path, class_name=parts[0])
