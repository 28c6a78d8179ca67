#include "server/app/flags.h"

#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>

#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/flags/usage_config.h"
#include "fmt/format.h"
#include "server/app/version.h"
#include "server/base/status_macros.h"
#include "server/ess/measure.h"

ABSL_FLAG(std::string, config, "", "Configuration: ess.v1.ServerConfig in protobuf text format");
ABSL_FLAG(std::string, listen, "", "HOST:PORT of gRPC; port 0 picks one (default 127.0.0.1:8001)");
ABSL_FLAG(std::string, metrics_listen, "",
          "HOST:PORT of HTTP /metrics; port 0 picks one (default 127.0.0.1:8002)");
ABSL_FLAG(std::string, model_root, "",
          "Folder whose subfolders in Hugging Face layout are models of their name");
ABSL_FLAG(std::vector<std::string>, preload, {}, "Models to load before the ready line");
ABSL_FLAG(std::string, device, "", "auto, cpu, cuda, cuda:INDEX, ... (default auto)");
ABSL_FLAG(std::string, state_dir, "", "Folder of jobs and their results");
ABSL_FLAG(int, threads, 0, "CPU threads of the computation (default: the cores)");

namespace ess {
namespace {

// Keeps the first error of the text format parser.
class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, int column, const std::string& message) override {
    if (text_.empty()) text_ = fmt::format("line {}, column {}: {}", line + 1, column + 1, message);
  }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

absl::Status ReadConfigFile(const std::string& path, v1::ServerConfig& config) {
  std::ifstream file(path);
  std::stringstream text;
  // An empty file is a configuration too, and inserting nothing counts as a failure.
  if (file && file.peek() != std::ifstream::traits_type::eof()) text << file.rdbuf();
  if (!file.is_open() || file.bad() || !text) {
    return absl::InvalidArgumentError(fmt::format("config: cannot read '{}'", path));
  }
  FirstError error;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&error);
  if (!parser.ParseFromString(text.str(), &config)) {
    return absl::InvalidArgumentError(fmt::format("config: '{}', {}", path, error.text()));
  }
  return absl::OkStatus();
}

void OverrideFromFlags(v1::ServerConfig& config) {
  auto set = [](const std::string& flag, std::string* field) {
    if (!flag.empty()) *field = flag;
  };
  set(absl::GetFlag(FLAGS_listen), config.mutable_listen());
  set(absl::GetFlag(FLAGS_metrics_listen), config.mutable_metrics_listen());
  set(absl::GetFlag(FLAGS_model_root), config.mutable_model_root());
  set(absl::GetFlag(FLAGS_device), config.mutable_device());
  set(absl::GetFlag(FLAGS_state_dir), config.mutable_state_dir());
  if (absl::GetFlag(FLAGS_threads) != 0) config.set_threads(absl::GetFlag(FLAGS_threads));
  if (const auto preload = absl::GetFlag(FLAGS_preload); !preload.empty()) {
    config.mutable_preload()->Assign(preload.begin(), preload.end());
  }
}

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

}  // namespace

absl::StatusOr<v1::ServerConfig> ReadServerConfig(int argc, char** argv) {
  absl::SetProgramUsageMessage(
      "profiles how much of its memory each layer of a sequence model uses, over gRPC.\n"
      "Example: ess_server --model_root=models --preload=smollm2-135m");
  absl::FlagsUsageConfig usage;
  usage.version_string = [] { return fmt::format("ess_server {} ({})\n", kVersion, kCommit); };
  // --help shows the flags of this file.
  usage.contains_helpshort_flags = usage.contains_help_flags = [](absl::string_view file) {
    return file.find("server/app/flags.cc") != absl::string_view::npos;
  };
  absl::SetFlagsUsageConfig(usage);
  const std::vector<char*> rest = absl::ParseCommandLine(argc, argv);
  if (rest.size() > 1) {
    return absl::InvalidArgumentError(fmt::format("unknown argument '{}'; see --help", rest[1]));
  }
  v1::ServerConfig config;
  if (const std::string path = absl::GetFlag(FLAGS_config); !path.empty()) {
    ESS_RETURN_IF_ERROR(ReadConfigFile(path, config));
  }
  OverrideFromFlags(config);
  ESS_RETURN_IF_ERROR(CompleteServerConfig(config));
  return config;
}

absl::Status CompleteServerConfig(v1::ServerConfig& config) {
  if (config.listen().empty()) config.set_listen("127.0.0.1:8001");
  if (config.metrics_listen().empty()) config.set_metrics_listen("127.0.0.1:8002");
  if (config.device().empty()) config.set_device("auto");
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
      Complete<double>("drain_seconds", config.drain_seconds(), 25,
                       [&](double v) { config.set_drain_seconds(v); }),
      Complete<int>("max_metrics_layers", config.max_metrics_layers(), 256,
                    [&](int v) { config.set_max_metrics_layers(v); }),
  };
  for (const absl::Status& check : checks) ESS_RETURN_IF_ERROR(check);
  return absl::OkStatus();
}

}  // namespace ess
