"""Fine-tuning for users: their data, their model, an adapter or a checkpoint at the end."""
