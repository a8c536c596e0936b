"""What the gateway costs beside others and beside its own past, and how it bears a long day."""
