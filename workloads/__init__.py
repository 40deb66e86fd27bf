"""What is baked into the image: training, inference benchmarks, telemetry and data. Started with `python -m`."""
