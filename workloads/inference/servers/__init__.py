"""The life of an engine's server: started, healthy, asked, stopped; and ended later when its harness was killed."""
