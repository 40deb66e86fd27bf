"""Fine-tuning with Hugging Face Accelerate."""
