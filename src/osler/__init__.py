"""Osler: the MedGemma system, where the data is."""
