"""A canned OpenAI-compatible streaming server, without a model: the yardstick of the load generator and the fake of tests.

    python -m workloads.inference.load.canned --port 0 --ttft-ms 20 --itl-ms 20 --log sends.jsonl

It answers /v1/completions, /v1/chat/completions (streamed and not), /health, /version, /v1/models, /metrics and /reset_prefix_cache.
The first line on stdout is JSON with `url` and `pid`. Faults and stalls are put in on purpose, by seed, or by request.
"""
