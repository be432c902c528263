"""Records and messages to model input: display values, pixels, token ids."""
