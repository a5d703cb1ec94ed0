"""Choose and combine image-classifier backbones with evidence."""

__version__ = "0.1.0"
