"""Which trial is next and when one is stopped: the queue, suggestions by Optuna, halving. Imports no Ray."""
