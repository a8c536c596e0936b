"""Anthropic Messages: https://docs.claude.com/en/api/messages"""

#: Under this name a request's ``extras`` hold what only this dialect knows.
NAME = "anthropic_messages"
