"""What users do with a model: ask, chat, embed, classify."""
