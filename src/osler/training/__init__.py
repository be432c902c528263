"""The training phases and recipes."""
