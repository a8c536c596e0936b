"""What operators see: one log line a request, metrics, usage.  Never a key, a prompt or a provider's host."""
