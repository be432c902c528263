"""A timeline to text for a model: compact, in tables, or full, within a budget of tokens."""
