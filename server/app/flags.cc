#include "server/app/flags.h"

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <optional>
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
#include "server/security/access_list.h"

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
ABSL_FLAG(std::string, access_file, "", "Who may call: tokens, by their hashes, and roles");
ABSL_FLAG(std::string, tls_certificate, "", "PEM file of the server's certificates: TLS");
ABSL_FLAG(std::string, tls_key, "", "PEM file of the private key of --tls_certificate");
ABSL_FLAG(std::string, tls_client_ca, "",
          "PEM file of those who sign certificates of clients: mutual TLS");
ABSL_FLAG(bool, allow_insecure_network, false,
          "Listen on the network although there is no TLS, or anybody may do everything");
ABSL_FLAG(std::string, new_token, "",
          "NAME:ROLE (viewer, user or admin): print a new token and its line for the access file, "
          "and end");
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

// Two lines on standard output: the token, and its line of an access file.
absl::Status PrintNewToken(const std::string& name_and_role) {
  const size_t colon = name_and_role.rfind(':');
  const std::string name = name_and_role.substr(0, colon);
  const std::optional<security::Role> role =
      colon == std::string::npos ? std::nullopt
                                 : security::ParseRole(name_and_role.substr(colon + 1));
  if (!role || !security::IsCallerName(name)) {
    return absl::InvalidArgumentError(fmt::format(
        "new_token: '{}' is not NAME:ROLE; a name is visible ASCII, a role viewer, user or admin",
        name_and_role));
  }
  const std::string token = security::NewToken();
  std::fprintf(stderr, "A new token, shown only now, and its line for the access file:\n");
  std::printf("%s\n%s\n", token.c_str(),
              security::AccessLine({.name = name, .role = *role}, token).c_str());
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
  set(absl::GetFlag(FLAGS_log_format), config.mutable_log_format());
  set(absl::GetFlag(FLAGS_access_file), config.mutable_access_file());
  set(absl::GetFlag(FLAGS_tls_certificate), config.mutable_tls_certificate());
  set(absl::GetFlag(FLAGS_tls_key), config.mutable_tls_key());
  set(absl::GetFlag(FLAGS_tls_client_ca), config.mutable_tls_client_ca());
  if (absl::GetFlag(FLAGS_allow_insecure_network)) config.set_allow_insecure_network(true);
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
  if (const std::string caller = absl::GetFlag(FLAGS_new_token); !caller.empty()) {
    ESS_RETURN_IF_ERROR(PrintNewToken(caller));
    std::exit(0);
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
