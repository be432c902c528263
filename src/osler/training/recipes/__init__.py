"""The recipes: plain functions that say what is trained on what, in which order, how long."""
