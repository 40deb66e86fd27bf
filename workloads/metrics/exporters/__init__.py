"""A run's figures for Prometheus: names.py says what is exported, page.py turns a run into it, the rest carries it."""
