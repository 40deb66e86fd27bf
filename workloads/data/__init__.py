"""Data: fetched once and checked (download_dataset), turned into one form (formats), packed into batches (packing)."""
