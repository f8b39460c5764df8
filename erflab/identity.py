"""What makes two runs the same: the part of a configuration that its result depends on, and the files that it names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any

from erflab.config import WEIGHTS_WITHOUT_FILE, ErflabConfig, FolderConfig, as_dict
from erflab.errors import RefusedError
from erflab.jsonfiles import as_json, from_json

WITHOUT_EFFECT = ("accept", "checkpoint", "figures", "overwrite", "progress", "recompute", "strict")
"""Options of `runtime` that change what is kept meanwhile, shown or refused, never a number."""

PATHS = (("model", "weights"), ("images", "path"))
"""Options that may name a file or a folder."""

ABSENT = "absent"

Differences = dict[str, tuple[Any, Any]]
"""Dotted name -> (there, here)."""


def identity(config: ErflabConfig) -> dict[str, Any]:
    """The configuration as it matters for the result: files and folders by name (their hashes are recorded elsewhere)."""
    plain = relevant(as_dict(config))
    plain["target"]["layer"] = config.target.layer or config.model.layer
    return without_paths(plain)


def without_paths(plain: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration with files and folders by name."""
    found = dict(plain)
    for group, key in PATHS:
        value = plain.get(group, {}).get(key)
        if value:
            found[group] = {**plain[group], key: PurePath(str(value)).name}
    return found


def relevant(plain: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration as nested dictionaries, without what changes no number."""
    runtime = {key: value for key, value in plain.get("runtime", {}).items() if key not in WITHOUT_EFFECT}
    return {key: value for key, value in plain.items() if key != "tracking"} | {"runtime": runtime}


def fingerprint(plain: Mapping[str, Any]) -> str:
    """Ten hexadecimal digits that name the relevant part of a configuration, paths included: a run's directory."""
    return hashlib.sha256(as_json(relevant(plain)).encode()).hexdigest()[:10]


def flat(plain: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries by dotted names, as options are written; an empty dictionary, and a method not chosen, are none."""
    found: dict[str, Any] = {}
    for key, value in plain.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return {name: value for name, value in found.items() if not (prefix == "attribution." and value is None)}


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> Differences:
    """The values that differ between two nested dictionaries, by dotted name; "absent" where one has no such key."""
    one, other = flat(from_json(as_json(there))), flat(from_json(as_json(here)))
    pairs = {name: (one.get(name, ABSENT), other.get(name, ABSENT)) for name in {**one, **other}}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def changed_files(config: ErflabConfig, model: Mapping[str, Any], images: Mapping[str, Any]) -> Differences:
    """The weights file and the images of a folder whose content is no longer that which a result was measured with.

    Args:
        config: with the paths as they are now.
        model, images: the result's attributes of these names, with the hashes.
    """
    found: Differences = {}
    if config.model.weights not in WEIGHTS_WITHOUT_FILE:
        path = Path(config.model.weights).expanduser()
        now = _sha256(path) if path.is_file() else ABSENT
        found[f"content of {path.name}"] = (model["weights_sha256"][:12], now[:12])
    if isinstance(config.images, FolderConfig):
        found |= dict(_changed_images(Path(str(config.images.path)).expanduser(), images))
    return {name: pair for name, pair in found.items() if pair[0] != pair[1]}


def _changed_images(folder: Path, images: Mapping[str, Any]) -> Iterator[tuple[str, tuple[str, str]]]:
    from erflab.photographs import folder_pictures

    now = {picture.name: picture for picture in folder_pictures(folder)[0]}
    used = {entry["name"]: entry["sha256"] for entry in images["files"]}
    for name, there in used.items():
        yield f"content of {name}", (there[:12], now[name].sha256()[:12] if name in now else ABSENT)
    # Images are taken in the order of their names: one that is new among those used would have been used.
    known = {*used, *(entry["name"] for kind in ("left_out", "skipped") for entry in images[kind])}
    for name in now:
        if used and name < max(used) and name not in known:
            yield f"content of {name}", (ABSENT, now[name].sha256()[:12])


def contents(images: Mapping[str, Any]) -> dict[str, Any]:
    """The record of images with the hash of each file by its name, and of those that cannot be read the names alone."""
    files = {entry["name"]: entry["sha256"][:12] for entry in images.get("files", ())}
    return {**images, "files": files, "skipped": [entry["name"] for entry in images.get("skipped", ())]}


def refuse_another(directory: Path, what: str, changed: Differences) -> None:
    """Raise RefusedError if what lies in a directory, a result or a checkpoint, differs from what is to be measured."""
    if changed:
        raise RefusedError(
            f"{directory} holds a {what} of another configuration ({told(changed)}); choose another directory "
            "(hydra.run.dir, hydra.sweep.dir), or replace it: runtime.overwrite=true."
        )


def told(found: Differences) -> str:
    """The differences as a sentence's part: "model.seed: 0 there, 1 here; ..."."""
    return "; ".join(f"{name}: {there!r} there, {here!r} here" for name, (there, here) in sorted(found.items()))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
