"""The user's pictures: sources, folds and the first audit. Knows nothing of models."""
