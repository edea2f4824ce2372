from hypothesis import HealthCheck, settings

# How long an example takes is the machine's affair, and nothing that a rule promises.
settings.register_profile("rules", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("rules")
