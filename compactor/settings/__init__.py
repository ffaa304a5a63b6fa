"""Settings: `compactor.toml`, the environment, and the accounts at the broker."""
