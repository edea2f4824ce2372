"""To telephones: SMS through gateways, one module for each kind of gateway."""
