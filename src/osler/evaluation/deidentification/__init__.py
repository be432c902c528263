"""How much of what identifies is gone: identifiers planted in files, and looked for afterwards."""
