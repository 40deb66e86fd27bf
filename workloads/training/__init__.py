"""Fine-tuning: core/ is shared, each strategy is one screen beside it."""
