"""Plays autoscaling rules against traces of load, hit rate and model latency: ``python -m simulator`` in ``hack/``."""
