#include "server/app/flags.h"

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/flags/usage_config.h"
#include "fmt/format.h"
#include "server/app/server_config.h"
#include "server/app/version.h"
#include "server/base/status_macros.h"

ABSL_FLAG(std::string, config, "", "Configuration: ess.v1.ServerConfig in protobuf text format");
ABSL_FLAG(std::string, listen, "", "HOST:PORT of gRPC; port 0 picks one (default 127.0.0.1:8001)");
ABSL_FLAG(std::string, metrics_listen, "",
          "HOST:PORT of HTTP /metrics; port 0 picks one (default 127.0.0.1:8002)");
ABSL_FLAG(std::string, model_root, "",
          "Folder whose subfolders in Hugging Face layout are models of their name");
ABSL_FLAG(std::vector<std::string>, preload, {}, "Models to load before the ready line");
ABSL_FLAG(std::string, device, "", "auto, cpu, cuda, cuda:INDEX, ... (default auto)");
ABSL_FLAG(std::string, state_dir, "", "Folder of jobs and their results");
ABSL_FLAG(std::string, log_format, "", "text or json (default text)");
ABSL_FLAG(int, threads, 0, "CPU threads of the computation (default: the cores)");

namespace ess {
namespace {

absl::StatusOr<v1::ServerConfig> ReadConfigFile(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  // An empty file is a configuration too, and inserting nothing counts as a failure.
  if (file && file.peek() != std::ifstream::traits_type::eof()) text << file.rdbuf();
  if (!file.is_open() || file.bad() || !text) {
    return absl::InvalidArgumentError(fmt::format("config: cannot read '{}'", path));
  }
  return ParseServerConfig(text.str(), path);
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
  set(absl::GetFlag(FLAGS_log_format), config.mutable_log_format());
  if (absl::GetFlag(FLAGS_threads) != 0) config.set_threads(absl::GetFlag(FLAGS_threads));
  if (const auto preload = absl::GetFlag(FLAGS_preload); !preload.empty()) {
    config.mutable_preload()->Assign(preload.begin(), preload.end());
  }
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
    ESS_ASSIGN_OR_RETURN(config, ReadConfigFile(path));
  }
  OverrideFromFlags(config);
  ESS_RETURN_IF_ERROR(CompleteServerConfig(config));
  return config;
}

}  // namespace ess
