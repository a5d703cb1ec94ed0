"""The study on disk: the one home of its paths and formats. Knows nothing of models or of ray."""
