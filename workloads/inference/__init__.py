"""Inference benchmarks: engines behind one signature, one module that turns their stamps into metrics."""
