"""The analyser that runs locally and is free: VADER for sentiment, keyword tables for the rest."""
