"""Programs that load a server or a command for minutes; each is started from the root with ``python -m``."""
