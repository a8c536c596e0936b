"""What every request passes before its handler: one job a module, listed in order in `proxy/app.py`."""
