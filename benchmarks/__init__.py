"""Measurements that are too long for the tests. Each is run as `python -m benchmarks.NAME`."""
