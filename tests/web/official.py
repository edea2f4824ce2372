"""The official files of the Identity Service API, where they lie beside this project."""

import re
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[3] / "shared/spec/data/api/identity"
MISSING = f"the specification's files are not at {FOLDER}"
_METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}


def is_there():
    return FOLDER.is_dir()


@cache
def document() -> dict[str, Any]:
    """All of the files as one: what they refer to stands in its place, and paths are whole."""
    paths: dict[str, Any] = {}
    schemes: dict[str, Any] = {}
    for file in sorted(FOLDER.glob("*.yaml")):
        loaded = _resolved(_load(file), file.parent)
        base = loaded["servers"][0]["variables"]["basePath"]["default"]
        for path, operations in loaded["paths"].items():
            assert base + path not in paths
            paths[base + path] = operations
        schemes |= loaded.get("components", {}).get("securitySchemes", {})
    return {
        "openapi": "3.1.0",
        "info": {"title": "Identity Service API", "version": "2"},
        "paths": paths,
        "components": {"securitySchemes": schemes},
    }


def operations():
    """Method, whole path and description of everything that can be asked."""
    for path, found in document()["paths"].items():
        for method, operation in found.items():
            if method in _METHODS:
                yield method.upper(), path, operation


def schema_of(answer):
    """What a documented answer consists of; empty where nothing is said, as with pages."""
    return answer.get("content", {}).get("application/json", {}).get("schema", {})


def errcodes_of(answer):
    """The error codes that the description of an answer, or its example, names."""
    examples = answer.get("content", {}).get("application/json", {}).get("examples", {})
    return set(re.findall(r"\bM_[A-Z_]+[A-Z]\b", answer["description"] + repr(examples)))


@cache
def _load(file: Path) -> Any:
    import yaml  # noqa: PLC0415 - only where the files are

    return yaml.safe_load(file.read_text())


def _resolved(value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_resolved(item, folder) for item in value]
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("$ref"), str):
        name, _, pointer = value["$ref"].partition("#/")
        target = (folder / name).resolve()
        found = _load(target)
        for part in filter(None, pointer.split("/")):
            found = found[part]
        return _resolved(found, target.parent)
    return {name: _resolved(item, folder) for name, item in value.items()}
