#include "server/app/server_config.h"

#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>

#include <algorithm>
#include <thread>
#include <vector>

#include "fmt/format.h"
#include "server/base/available_memory.h"
#include "server/base/cut_text.h"
#include "server/base/status_macros.h"
#include "server/ess/measure.h"

namespace ess {
namespace {

// Of the tensors of a message; the rest of its 2 GiB is for what stands beside them.
constexpr int64_t kMostAnswerBytes = (int64_t{2} << 30) - (16 << 20);

// Keeps the first error of the text format parser.
class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, int column, const std::string& message) override {
    if (text_.empty())
      text_ = fmt::format("line {}, column {}: {}", line + 1, column + 1, CutText(message));
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

// Sets a field that is 0 to its default and checks that it is not negative.
template <typename T>
absl::Status Complete(const char* field, T value, T fallback, auto set) {
  if (!(value >= 0)) {  // NaN too.
    return absl::InvalidArgumentError(
        fmt::format("{}: {} is negative; it must be at least 1, or 0 for the default of {}", field,
                    value, fallback));
  }
  if (value == 0) set(fallback);
  return absl::OkStatus();
}

absl::Status AtMost(const char* field, int64_t value, int64_t limit) {
  if (value <= limit) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("{}: {} is too much; the limit is {}", field, value, limit));
}

// What belongs together in the configuration of TLS.
absl::Status CheckTls(const v1::ServerConfig& config) {
  if (config.tls_certificate().empty() != config.tls_key().empty()) {
    return absl::InvalidArgumentError(config.tls_key().empty()
                                          ? "tls_key: it is missing, and tls_certificate is given"
                                          : "tls_certificate: it is missing, and tls_key is given");
  }
  if (!config.tls_client_ca().empty() && config.tls_certificate().empty()) {
    return absl::InvalidArgumentError(
        "tls_client_ca: it needs TLS; give tls_certificate and tls_key too");
  }
  const std::string& wanted = config.tls_client_certificates();
  if (wanted != "require" && wanted != "optional") {
    return absl::InvalidArgumentError(fmt::format(
        "tls_client_certificates: '{}' is neither require nor optional", CutText(wanted)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<v1::ServerConfig> ParseServerConfig(const std::string& text,
                                                   const std::string& display_name) {
  v1::ServerConfig config;
  FirstError error;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&error);
  if (!parser.ParseFromString(text, &config)) {
    return absl::InvalidArgumentError(fmt::format("config: '{}', {}", display_name, error.text()));
  }
  return config;
}

absl::Status CompleteServerConfig(v1::ServerConfig& config) {
  if (config.listen().empty()) config.set_listen("127.0.0.1:8001");
  if (config.metrics_listen().empty()) config.set_metrics_listen("127.0.0.1:8002");
  if (config.device().empty()) config.set_device("auto");
  if (config.log_format().empty()) config.set_log_format("text");
  if (config.tls_client_certificates().empty()) config.set_tls_client_certificates("require");
  if (config.metrics_measure().empty()) config.set_metrics_measure("tolerance:1e-3");
  absl::StatusOr<Measure> measure = ParseMeasure(config.metrics_measure());
  if (!measure.ok()) {
    return absl::InvalidArgumentError(
        fmt::format("metrics_measure: {}", std::string(measure.status().message())));
  }
  config.set_metrics_measure(FormatMeasure(*measure));
  const int cores = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  const std::vector<absl::Status> checks = {
      Complete<int>("threads", config.threads(), cores, [&](int v) { config.set_threads(v); }),
      Complete<int64_t>("max_prompt_tokens", config.max_prompt_tokens(), 8192,
                        [&](int64_t v) { config.set_max_prompt_tokens(v); }),
      Complete<int>("max_prompts", config.max_prompts(), 256,
                    [&](int v) { config.set_max_prompts(v); }),
      Complete<int>("max_running_profiles", config.max_running_profiles(), 1,
                    [&](int v) { config.set_max_running_profiles(v); }),
      Complete<int>("max_queued_profiles", config.max_queued_profiles(), 64,
                    [&](int v) { config.set_max_queued_profiles(v); }),
      Complete<int64_t>("max_queued_tokens", config.max_queued_tokens(), int64_t{1} << 21,
                        [&](int64_t v) { config.set_max_queued_tokens(v); }),
      Complete<double>("max_stall_seconds", config.max_stall_seconds(), 60,
                       [&](double v) { config.set_max_stall_seconds(v); }),
      Complete<double>("max_reference_work", config.max_reference_work(), 2e12,
                       [&](double v) { config.set_max_reference_work(v); }),
      Complete<int64_t>("max_result_bytes", config.max_result_bytes(), int64_t{16} << 30,
                        [&](int64_t v) { config.set_max_result_bytes(v); }),
      Complete<int64_t>("max_operator_bytes", config.max_operator_bytes(), int64_t{1} << 30,
                        [&](int64_t v) { config.set_max_operator_bytes(v); }),
      Complete<int64_t>("max_operator_length", config.max_operator_length(), 8192,
                        [&](int64_t v) { config.set_max_operator_length(v); }),
      Complete<int64_t>("max_operator_batch", config.max_operator_batch(), 65536,
                        [&](int64_t v) { config.set_max_operator_batch(v); }),
      Complete<int64_t>("max_uploaded_bytes", config.max_uploaded_bytes(), int64_t{4} << 30,
                        [&](int64_t v) { config.set_max_uploaded_bytes(v); }),
      Complete<int64_t>("max_inference_answer_bytes", config.max_inference_answer_bytes(),
                        int64_t{64} << 20,
                        [&](int64_t v) { config.set_max_inference_answer_bytes(v); }),
      Complete<double>("drain_seconds", config.drain_seconds(), 25,
                       [&](double v) { config.set_drain_seconds(v); }),
      Complete<double>("drain_delay_seconds", config.drain_delay_seconds(), 0,
                       [&](double v) { config.set_drain_delay_seconds(v); }),
      Complete<double>("device_failure_seconds", config.device_failure_seconds(), 30,
                       [&](double v) { config.set_device_failure_seconds(v); }),
      Complete<int>("max_metrics_layers", config.max_metrics_layers(), 256,
                    [&](int v) { config.set_max_metrics_layers(v); }),
      Complete<int>("max_parallel_loads", config.max_parallel_loads(), 1,
                    [&](int v) { config.set_max_parallel_loads(v); }),
      Complete<double>("eviction_patience_seconds", config.eviction_patience_seconds(), 5,
                       [&](double v) { config.set_eviction_patience_seconds(v); }),
      Complete<int64_t>("max_message_bytes", config.max_message_bytes(), 4 << 20,
                        [&](int64_t v) { config.set_max_message_bytes(v); }),
      Complete<int64_t>("max_header_bytes", config.max_header_bytes(), 8 << 10,
                        [&](int64_t v) { config.set_max_header_bytes(v); }),
      Complete<int>("max_concurrent_streams", config.max_concurrent_streams(), 1024,
                    [&](int v) { config.set_max_concurrent_streams(v); }),
      Complete<int>("max_connections", config.max_connections(), 10000,
                    [&](int v) { config.set_max_connections(v); }),
      AtMost("max_connections", config.max_connections(), 1000000),
      Complete<int64_t>("max_network_bytes", config.max_network_bytes(), int64_t{1} << 30,
                        [&](int64_t v) { config.set_max_network_bytes(v); }),
      Complete<double>("max_connection_idle_seconds", config.max_connection_idle_seconds(), 3600,
                       [&](double v) { config.set_max_connection_idle_seconds(v); }),
      Complete<double>("max_connection_age_seconds", config.max_connection_age_seconds(), 0,
                       [](double) {}),
      Complete<double>("max_call_seconds", config.max_call_seconds(), 86400,
                       [&](double v) { config.set_max_call_seconds(v); }),
      AtMost("max_message_bytes", config.max_message_bytes(), 64 << 20),
      AtMost("max_header_bytes", config.max_header_bytes(), 1 << 20),
      Complete<int64_t>("max_job_prompts", config.max_job_prompts(), 100'000,
                        [&](int64_t v) { config.set_max_job_prompts(v); }),
      Complete<int64_t>("max_job_prompt_bytes", config.max_job_prompt_bytes(), int64_t{1} << 30,
                        [&](int64_t v) { config.set_max_job_prompt_bytes(v); }),
      Complete<int64_t>("max_job_result_bytes", config.max_job_result_bytes(), int64_t{64} << 30,
                        [&](int64_t v) { config.set_max_job_result_bytes(v); }),
      Complete<int>("max_queued_jobs", config.max_queued_jobs(), 1000,
                    [&](int v) { config.set_max_queued_jobs(v); }),
      Complete<double>("job_retention_seconds", config.job_retention_seconds(), 604800,
                       [&](double v) { config.set_job_retention_seconds(v); }),
      Complete<int64_t>("job_retention_bytes", config.job_retention_bytes(), int64_t{64} << 30,
                        [&](int64_t v) { config.set_job_retention_bytes(v); }),
      // FolderSource has the default, which differs by device.
      Complete<int64_t>("device_memory_budget_bytes", config.device_memory_budget_bytes(), 0,
                        [](int64_t) {}),
      Complete<int64_t>("host_memory_budget_bytes", config.host_memory_budget_bytes(), 0,
                        [](int64_t) {}),
  };
  for (const absl::Status& check : checks) ESS_RETURN_IF_ERROR(check);
  if (config.max_inference_answer_bytes() > kMostAnswerBytes) {
    return absl::InvalidArgumentError(
        fmt::format("max_inference_answer_bytes: {}; a message of gRPC holds up to {}",
                    config.max_inference_answer_bytes(), kMostAnswerBytes));
  }
  ESS_RETURN_IF_ERROR(CheckTls(config));
  if (!config.has_host_memory_budget_bytes()) {
    config.set_host_memory_budget_bytes(AvailableMemoryBytes() / 4);
  }
  if (config.drain_delay_seconds() > config.drain_seconds()) {
    return absl::InvalidArgumentError(
        fmt::format("drain_delay_seconds: {} is more than the {} of drain_seconds, which hold it",
                    config.drain_delay_seconds(), config.drain_seconds()));
  }
  if (config.log_format() != "text" && config.log_format() != "json") {
    return absl::InvalidArgumentError(
        fmt::format("log_format: '{}' is neither text nor json", CutText(config.log_format())));
  }
  return absl::OkStatus();
}

}  // namespace ess
