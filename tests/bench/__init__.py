"""What the gateway costs, beside a bare aiohttp relay and nginx: ``python -m tests.bench``."""
