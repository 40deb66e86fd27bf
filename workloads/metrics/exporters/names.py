"""Every exported metric: name, kind, help and labels, each said once; docs/reference/metrics.md and the dashboards use no others.

Prometheus' conventions: base units in the name, `_total` for what only grows, ratios from 0 to 1. Labels are few and their
values bounded: rank of the node, GPU index, percentile, status, reason, and of a benchmark its models and loads as its spec lists them.

    NAMES["ncdemo_train_loss"].help
"""

from typing import Literal, NamedTuple

PERCENTILES = ("p50", "p90", "p99")
STATUSES = ("running", "finished", "failed", "interrupted")


class Name(NamedTuple):
    kind: Literal["gauge", "counter"]
    help: str
    labels: tuple[str, ...] = ()


CELL = ("model", "load")
NODE = ("node",)
GPU = (*NODE, "gpu")
NAMES: dict[str, Name] = {
    "ncdemo_run_info": Name("gauge", "Always 1; what the run is.", ("kind", "name", "spec_hash")),
    "ncdemo_run_status": Name("gauge", "1 for the status that the run has, 0 for the others.", ("status",)),
    "ncdemo_run_evictions_total": Name(
        "counter", "Times that Azure announced to take the run's machine (of several, the first) back, over the attempts in its folder."
    ),
    "ncdemo_run_started_timestamp_seconds": Name("gauge", "When the run's clock was zero."),
    "ncdemo_run_last_progress_timestamp_seconds": Name("gauge", "When the last step, evaluation or request ended (its start, before any)."),
    "ncdemo_run_last_sample_timestamp_seconds": Name("gauge", "When the node's hardware was last sampled.", NODE),
    "ncdemo_run_seen_timestamp_seconds": Name(
        "gauge",
        "When the node was last known to be on the run: now while it exports itself, else the run's end, or the last step, request or sample.",
        NODE,
    ),
    "ncdemo_run_duration_seconds": Name("gauge", "How long the run took; absent while it runs."),
    "ncdemo_train_steps_total": Name("counter", "Optimizer steps done."),
    "ncdemo_train_examples_total": Name("counter", "Examples trained on."),
    "ncdemo_train_tokens_total": Name("counter", "Tokens trained on that are not padding, all ranks."),
    "ncdemo_train_target_tokens_total": Name("counter", "Tokens that carried loss, all ranks."),
    "ncdemo_train_step_seconds_total": Name("counter", "Time spent in steps: no evaluation, checkpoint or loading."),
    "ncdemo_train_loss": Name("gauge", "Loss of the last step: mean negative log-likelihood in nats."),
    "ncdemo_train_learning_rate": Name("gauge", "Learning rate of the last step."),
    "ncdemo_train_gradient_norm": Name("gauge", "L2 norm of the last step's gradient before clipping."),
    "ncdemo_train_tokens_per_second": Name("gauge", "Tokens per second of the last step."),
    "ncdemo_train_mfu_ratio": Name(
        "gauge", "Useful operations of the last step / its GPUs' dense bf16 peak; absent where that isn't known."
    ),
    "ncdemo_train_median_mfu_ratio": Name("gauge", "Median over all steps but the first; of a finished run."),
    "ncdemo_train_median_tokens_per_second": Name("gauge", "Median over all steps but the first; of a finished run."),
    "ncdemo_train_world_size": Name("gauge", "Ranks that trained; of a finished run."),
    "ncdemo_train_peak_vram_bytes": Name("gauge", "Most GPU memory that tensors of a rank took; of a finished run."),
    "ncdemo_train_energy_joules": Name("gauge", "What all GPUs of the node took in the steps; of a finished run on one node."),
    "ncdemo_eval_loss": Name("gauge", "Held-out loss in nats, of the first and of the newest evaluation.", ("evaluation",)),
    "ncdemo_eval_token_accuracy_ratio": Name("gauge", "Held-out target tokens that are the model's first choice.", ("evaluation",)),
    "ncdemo_eval_exact_match_ratio": Name("gauge", "Held-out answers equal to the reference.", ("evaluation",)),
    "ncdemo_bench_requests_total": Name("counter", "Requests made so far, by how they ended.", ("outcome",)),
    "ncdemo_bench_ttft_seconds": Name(
        "gauge", "Time to first token, in an open loop since the request was due, median over repeats.", (*CELL, "percentile")
    ),
    "ncdemo_bench_tpot_seconds": Name("gauge", "Time per output token after the first, median over repeats.", (*CELL, "percentile")),
    "ncdemo_bench_itl_seconds": Name("gauge", "Gap between tokens, median over repeats.", (*CELL, "percentile")),
    "ncdemo_bench_e2e_seconds": Name("gauge", "Send to last token, median over repeats.", (*CELL, "percentile")),
    "ncdemo_bench_output_tokens_per_second": Name("gauge", "Output tokens per second of the window, median over repeats.", CELL),
    "ncdemo_bench_requests_per_second": Name("gauge", "Requests per second of the window, median over repeats.", CELL),
    "ncdemo_bench_goodput_requests_per_second": Name("gauge", "Requests that met every objective, per second, median over repeats.", CELL),
    "ncdemo_bench_slo_attainment_ratio": Name("gauge", "Requests that met every objective / sent, median over repeats.", CELL),
    "ncdemo_bench_energy_joules_per_token": Name("gauge", "Energy of all GPUs of the node / output tokens, median over repeats.", CELL),
    "ncdemo_bench_usd_per_million_tokens": Name(
        "gauge", "Pay-as-you-go price of the node for a million output tokens, median over repeats.", CELL
    ),
    "ncdemo_bench_highest_rate_requests_per_second": Name("gauge", "Highest rate that a search found to meet the objectives.", CELL),
    "ncdemo_bench_in_flight_requests": Name(
        "gauge", "Times from send to last token of the requests that went well / window, median over repeats.", CELL
    ),
    "ncdemo_bench_send_lateness_seconds": Name("gauge", "The latest send behind its schedule, worst of the repeats.", CELL),
    "ncdemo_bench_engine_running_requests": Name("gauge", "Requests that the engine works on, by its own count.", ("model",)),
    "ncdemo_bench_engine_waiting_requests": Name("gauge", "Requests in the engine's queue, by its own count.", ("model",)),
    "ncdemo_bench_engine_kv_cache_used_ratio": Name(
        "gauge", "Share of the engine's key-value cache that is in use, by its own count; of several ranks the fullest.", ("model",)
    ),
    "ncdemo_bench_unmeasured_cells": Name("gauge", "Cells that could not be measured at all."),
    "ncdemo_host_cpu_busy_ratio": Name("gauge", "Busy share of all cores.", NODE),
    "ncdemo_host_memory_used_bytes": Name("gauge", "Memory in use on the machine.", NODE),
    "ncdemo_host_disk_read_bytes_per_second": Name("gauge", "Read from disks.", NODE),
    "ncdemo_host_disk_write_bytes_per_second": Name("gauge", "Written to disks.", NODE),
    "ncdemo_host_network_receive_bytes_per_second": Name("gauge", "Received over the network.", NODE),
    "ncdemo_host_network_transmit_bytes_per_second": Name("gauge", "Sent over the network.", NODE),
    "ncdemo_process_cpu_busy_cores": Name("gauge", "Cores that the run's processes keep busy.", NODE),
    "ncdemo_process_resident_memory_bytes": Name("gauge", "Resident memory of the run's processes.", NODE),
    "ncdemo_gpu_up": Name("gauge", "1 while the GPU answers, 0 when NVML reports an error or nothing.", GPU),
    "ncdemo_gpu_utilization_ratio": Name("gauge", "Share of time in which a kernel ran.", GPU),
    "ncdemo_gpu_memory_used_bytes": Name("gauge", "GPU memory in use.", GPU),
    "ncdemo_gpu_power_watts": Name("gauge", "Power draw.", GPU),
    "ncdemo_gpu_energy_joules_total": Name("counter", "The GPU's own energy counter since its driver was loaded.", GPU),
    "ncdemo_gpu_temperature_celsius": Name("gauge", "Temperature of the GPU.", GPU),
    "ncdemo_gpu_sm_clock_hertz": Name("gauge", "Clock of the streaming multiprocessors.", GPU),
    "ncdemo_gpu_memory_clock_hertz": Name("gauge", "Clock of the GPU's memory.", GPU),
    "ncdemo_gpu_throttled": Name("gauge", "1 while this reason keeps the GPU's clocks down, else 0.", (*GPU, "reason")),
    "ncdemo_gpu_xid_errors_total": Name("counter", "XIDs that the driver reported since the run's newest attempt began.", (*GPU, "xid")),
    "ncdemo_gpu_ecc_corrected_errors_total": Name("counter", "Corrected memory errors since the driver was loaded.", GPU),
    "ncdemo_gpu_ecc_uncorrected_errors_total": Name("counter", "Uncorrected memory errors since the driver was loaded.", GPU),
    "ncdemo_gpu_pcie_transmit_bytes_per_second": Name("gauge", "Sent by the GPU over PCIe, seen for 20 ms.", GPU),
    "ncdemo_gpu_pcie_receive_bytes_per_second": Name("gauge", "Received by the GPU over PCIe, seen for 20 ms.", GPU),
    "ncdemo_gpu_nvlink_transmit_bytes_total": Name("counter", "Payload sent over all NVLinks since the driver was loaded.", GPU),
    "ncdemo_gpu_nvlink_receive_bytes_total": Name("counter", "Payload received over all NVLinks since the driver was loaded.", GPU),
    "ncdemo_export_dropped_series": Name("gauge", "Series left out because a run has more than its bound."),
}
