"""What ships: an artefact that predicts, from a study or from a bundle that needs neither. Knows no ray, no mlflow."""
