"""One run's description, composed of the packages' own small dataclasses, and the command line."""
