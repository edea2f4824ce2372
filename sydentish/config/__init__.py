"""The configuration: one ini file and the environment, read once, checked as a whole, never written.

`load` gives the frozen `Config`, or a `ConfigError` with everything that is wrong. Every option is declared
once, in `sydentish.config.sections`; the loader, the names of environment variables and
`sydentish.conf.sample` all come from there.
"""

from sydentish.config.declare import Declaration, Secret
from sydentish.config.load import load
from sydentish.config.model import Config, options
from sydentish.config.problems import ConfigError, Problem
from sydentish.config.sample import sample
from sydentish.config.sections import (
    Database,
    Email,
    General,
    Homeservers,
    Http,
    Log,
    Lookup,
    Onbind,
    Validation,
)

__all__ = [
    "Config",
    "ConfigError",
    "Database",
    "Declaration",
    "Email",
    "General",
    "Homeservers",
    "Http",
    "Log",
    "Lookup",
    "Onbind",
    "Problem",
    "Secret",
    "Validation",
    "load",
    "options",
    "sample",
]
