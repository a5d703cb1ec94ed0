"""The fixed training core: backbones, freeze depth, pixels, views, fit. Knows no ray and no mlflow."""
