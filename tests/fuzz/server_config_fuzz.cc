// The server's configuration file.
#include "server/app/server_config.h"

#include "tests/fuzz/fuzz_target.h"

namespace ess::fuzz {

std::vector<std::string> Seeds() {
  return {
      "",
      "# A comment.\nlisten: \"127.0.0.1:8001\" metrics_listen: '127.0.0.1:8002'\n"
      "model_root: \"models\"\npreload: [\"a\", \"b\"]\ndevice: \"auto\"\n",
      "models { name: \"m\" path: \"folder\" options { random_init { seed: 7 } dtype: "
      "WEIGHT_DTYPE_FLOAT32 alias: \"n\" device: \"cpu\" pinned: true } }\n",
      "threads: 2 max_prompt_tokens: 8192 max_prompts: 256 max_running_profiles: 1\n"
      "max_queued_profiles: 64 max_reference_work: 2e12 metrics_measure: \"tolerance:1e-3\"\n"
      "drain_seconds: 25 max_metrics_layers: 256 max_result_bytes: 17179869184\n",
      "metrics_measure: \"singular_values:8\" max_operator_bytes: 0x40000000\n"
      "max_operator_length: 010 max_operator_batch: 65536 max_uploaded_bytes: 4294967296\n",
      "access_file: \"access\" tls_certificate: \"c\" tls_key: \"k\" tls_client_ca: \"ca\"\n"
      "tls_client_certificates: \"optional\" allow_insecure_network: true\n"
      "max_message_bytes: 67108864 max_header_bytes: 1 max_call_seconds: 1e300\n",
      "metrics_measure: \"relative:\" \"0.5\" drain_seconds: inf max_reference_work: nan\n",
  };
}

}  // namespace ess::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using absl::StatusCode;
  const std::string text(reinterpret_cast<const char*>(data), size);
  auto config = ess::ParseServerConfig(text, "input");
  ess::fuzz::CheckAnswer(config.status(), {StatusCode::kInvalidArgument});
  if (!config.ok()) return 0;
  const absl::Status complete = ess::CompleteServerConfig(*config);
  ess::fuzz::CheckAnswer(complete, {StatusCode::kInvalidArgument});
  // Complete once is complete for good.
  if (complete.ok()) ess::fuzz::CheckAnswer(ess::CompleteServerConfig(*config), {});
  return 0;
}
