"""Evaluation: metrics with their intervals, and what the models are measured on."""
