"""Signing keys as files: the active one in the key directory, others below it in `next/`, `retired/` and `revoked/`."""

from sydentish.keyfiles.changing import (
    finish_rotation,
    generate_key,
    must_not_sign,
    retire_key,
    revoke_key,
    rotate_key,
)
from sydentish.keyfiles.reading import (
    SUFFIX,
    KeyFile,
    KeyProblem,
    NoKey,
    file_name,
    inventory,
    key_files,
    key_warnings,
    load_keys,
    mode_warning,
    place_of,
    ring_of,
)
from sydentish.keyfiles.writing import CannotChange, write_key

__all__ = [
    "SUFFIX",
    "CannotChange",
    "KeyFile",
    "KeyProblem",
    "NoKey",
    "file_name",
    "finish_rotation",
    "generate_key",
    "inventory",
    "key_files",
    "key_warnings",
    "load_keys",
    "mode_warning",
    "must_not_sign",
    "place_of",
    "retire_key",
    "revoke_key",
    "ring_of",
    "rotate_key",
    "write_key",
]
