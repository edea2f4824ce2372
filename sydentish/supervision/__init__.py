"""Running under a service manager: what it hands over, and what it is told. systemd's, without its library."""
