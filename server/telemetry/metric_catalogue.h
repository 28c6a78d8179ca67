// THE LIST of metrics. Names and labels are an interface: dashboards and alerts depend on them.
// docs/metrics.md documents each; a test compares the two.
//
// Rules: base units, `_total` on counters, few and bounded label values: never a prompt, a request
// id, a client's name or an error text. A name the server does not serve is model="".
//
// COUNTER(field, name, help, labels...)   GAUGE(...)   HISTOGRAM(field, name, help, buckets,
// labels...)
#pragma once

// clang-format off
#define ESS_METRICS(COUNTER, GAUGE, HISTOGRAM)                                                     \
  /* Service. */                                                                                   \
  GAUGE(build_info, "ess_build_info", "1; what is running",                                        \
        "version", "commit", "torch", "grpc")                                                      \
  COUNTER(requests, "ess_requests_total", "Finished calls by status code",                         \
          "model", "rpc", "code")                                                                  \
  COUNTER(requests_shed, "ess_requests_shed_total", "Calls refused before any work",               \
          "model", "reason")                                                                       \
  COUNTER(requests_cancelled, "ess_requests_cancelled_total", "Calls ended by their caller",       \
          "model", "stage")                                                                        \
  HISTOGRAM(cancel_latency, "ess_cancel_latency_seconds",                                          \
            "Time from a cancel or deadline to the end of the work", kSeconds, "model")            \
  GAUGE(requests_in_flight, "ess_requests_in_flight", "Calls begun and not finished",              \
        "model", "rpc")                                                                            \
  GAUGE(queue_requests, "ess_queue_requests", "Requests waiting", "model", "priority")             \
  GAUGE(queue_tokens, "ess_queue_tokens", "Tokens of waiting requests", "model", "priority")       \
  GAUGE(queue_limit_tokens, "ess_queue_limit_tokens", "Tokens that may wait", "model")             \
  HISTOGRAM(queue_wait, "ess_queue_wait_seconds", "Time from arrival to start", kSeconds, "model") \
  HISTOGRAM(request_duration, "ess_request_duration_seconds",                                      \
            "Arrival to last byte handed to gRPC, failures included", kSeconds, "model", "rpc")    \
  HISTOGRAM(stage_duration, "ess_stage_duration_seconds", "Time in a stage of a profile",          \
            kSeconds, "model", "stage")                                                            \
  HISTOGRAM(batch_sequences, "ess_batch_sequences", "Prompts of a forward pass", kCounts, "model") \
  HISTOGRAM(batch_tokens, "ess_batch_tokens", "Tokens of a forward pass", kCounts, "model")        \
  COUNTER(tokens, "ess_tokens_total", "Tokens run through the model", "model")                     \
  COUNTER(grpc_started, "ess_grpc_started_total", "Calls begun", "rpc")                            \
  COUNTER(grpc_handled, "ess_grpc_handled_total", "Calls finished", "rpc", "code")                 \
  COUNTER(grpc_sent_bytes, "ess_grpc_sent_bytes_total", "Bytes of answer messages", "rpc")         \
  COUNTER(grpc_received_bytes, "ess_grpc_received_bytes_total", "Bytes of request messages", "rpc") \
  COUNTER(stream_stalled, "ess_stream_stalled_seconds_total", "Time spent waiting for readers",    \
          "rpc")                                                                                   \
  /* Jobs. */                                                                                       \
  GAUGE(jobs, "ess_jobs", "Jobs in the database", "state")                                         \
  COUNTER(jobs_finished, "ess_jobs_finished_total", "Jobs that have ended", "state")               \
  HISTOGRAM(job_duration, "ess_job_duration_seconds", "From submission to end", kJobSeconds)       \
  GAUGE(result_store_bytes, "ess_result_store_bytes", "Bytes of the jobs' results")                \
  GAUGE(result_store_files, "ess_result_store_files", "Results of jobs that are kept")             \
  /* Models. */                                                                                    \
  GAUGE(model_info, "ess_model_info", "1; facts about a resident model",                           \
        "model", "architecture", "dtype", "layers", "device", "measure")                           \
  GAUGE(model_state, "ess_model_state", "1 for the state the model is in, else 0",                 \
        "model", "state")                                                                          \
  GAUGE(model_bytes, "ess_model_bytes", "Bytes of weights", "model", "tier")                       \
  HISTOGRAM(model_load_duration, "ess_model_load_duration_seconds", "Time of a load, failures included", \
            kSeconds, "model", "tier_from")                                                        \
  COUNTER(model_loads, "ess_model_loads_total", "Loads by result", "model", "result")              \
  COUNTER(model_evictions, "ess_model_evictions_total", "Models taken out to make room",           \
          "model", "reason")                                                                       \
  GAUGE(device_memory, "ess_device_memory_bytes", "Memory of a device, at the last change",        \
        "device", "kind")                                                                          \
  GAUGE(model_last_used, "ess_model_last_used_timestamp_seconds", "Start of the last use",         \
        "model")                                                                                   \
  GAUGE(device_healthy, "ess_device_healthy", "1; 0 after an error that the device keeps",         \
        "device")                                                                                  \
  /* What the profiler measures, by the server's metrics measure. */                               \
  HISTOGRAM(state_utilization, "ess_state_utilization_ratio",                                      \
            "ESS / TSS of a sequence and layer, ratio of sums", kRatios, "model", "layer")         \
  COUNTER(effective_state_size_sum, "ess_effective_state_size_sum_total",                          \
          "Sum of ESS over channels and positions", "model", "layer")                              \
  COUNTER(state_size_sum, "ess_state_size_sum_total",                                              \
          "Sum of TSS over channels and positions", "model", "layer")                              \
  COUNTER(observations, "ess_observations_total", "Sequences observed", "model", "layer")          \
  COUNTER(state_saturated, "ess_state_saturated_observations_total",                               \
          "Observations of a utilization of 0.95 or more", "model", "layer")                       \
  COUNTER(state_idle, "ess_state_idle_observations_total",                                         \
          "Observations of a utilization of 0.05 or less", "model", "layer")                       \
  COUNTER(nonfinite_observations, "ess_nonfinite_observations_total",                              \
          "Operators with a NaN or an infinity; must stay 0", "model")                             \
  COUNTER(profiled_sequences, "ess_profiled_sequences_total", "Prompts profiled", "model")         \
  COUNTER(profiled_positions, "ess_profiled_positions_total",                                      \
          "Positions profiled, counted once per prompt", "model")
// clang-format on
