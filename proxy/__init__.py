"""A streaming gateway between OpenAI-compatible clients and language-model providers."""

__version__ = "0.1.0"
