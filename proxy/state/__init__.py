"""What outlives a request: limits, per process."""
