"""The configuration: one ini file and the environment, read once, checked as a whole, never written.

`load` gives the frozen `Config`, or a `ConfigError` with everything that is wrong. Every option is declared
once, in `sydentish.config.sections`; the loader, the names of environment variables and
`sydentish.conf.sample` all come from there.
"""

from sydentish.config.declare import Declaration, Secret
from sydentish.config.gateways import (
    GatewaySection,
    HttpSection,
    LogSection,
    OpenMarketSection,
    TwilioSection,
)
from sydentish.config.load import load
from sydentish.config.model import Config, options
from sydentish.config.network import V1_ENDPOINTS, IPNetwork, Source
from sydentish.config.problems import ConfigError, Problem
from sydentish.config.reference import reference
from sydentish.config.sample import sample
from sydentish.config.sections import (
    Budgets,
    Database,
    Email,
    General,
    Homeservers,
    Http,
    Invites,
    Keeping,
    Log,
    Lookup,
    Onbind,
    Replication,
    Sms,
    Validation,
)

__all__ = [
    "V1_ENDPOINTS",
    "Budgets",
    "Config",
    "ConfigError",
    "Database",
    "Declaration",
    "Email",
    "GatewaySection",
    "General",
    "Homeservers",
    "Http",
    "HttpSection",
    "IPNetwork",
    "Invites",
    "Keeping",
    "Log",
    "LogSection",
    "Lookup",
    "Onbind",
    "OpenMarketSection",
    "Problem",
    "Replication",
    "Secret",
    "Sms",
    "Source",
    "TwilioSection",
    "Validation",
    "load",
    "options",
    "reference",
    "sample",
]
