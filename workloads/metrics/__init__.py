"""What is measured beside the work: hardware samples, the environment of a run, and the export to MLflow."""
