// config.json of every architecture, and the configs that are translated into one: read, and made
// into a model of zeros as long as that takes no more than a few bytes.
#include <ATen/ATen.h>

#include "server/base/json_file.h"
#include "server/base/status_macros.h"
#include "server/base/torch_status.h"
#include "server/models/architectures.h"
#include "server/models/mamba_ssm_config.h"
#include "tests/fuzz/fuzz_target.h"

namespace ess::fuzz {
namespace {

// A checkpoint that has every tensor, of zeros, until there is no room for the next.
class FewZeros final : public models::TensorSource {
 public:
  explicit FewZeros(bool has_all) : has_all_(has_all) {}

  bool Has(std::string_view name) const override { return has_all_; }
  absl::StatusOr<at::Tensor> Take(std::string_view name, at::IntArrayRef shape) override {
    int64_t elements = 1;
    for (const int64_t size : shape) {
      if (size < 0) return absl::InternalError("a negative size is asked for");
      if (__builtin_mul_overflow(elements, size, &elements)) elements = kMaxElements;
      elements = std::min(elements, kMaxElements);
    }
    taken_ += elements;
    if (taken_ >= kMaxElements) return absl::ResourceExhaustedError("no room");
    return at::zeros(shape, at::kFloat);
  }
  models::TensorTotals Totals() const override {
    return {.bytes = 4 * taken_, .parameters = taken_, .dtype = "float32"};
  }

 private:
  static constexpr int64_t kMaxElements = 1 << 16;
  const bool has_all_;
  int64_t taken_ = 0;
};

absl::Status ReadModel(const models::ConfigReader& config) {
  ESS_ASSIGN_OR_RETURN(const std::string model_type, config.String("model_type", std::nullopt));
  const models::Architecture* const architecture = models::FindArchitecture(model_type);
  if (architecture == nullptr) return absl::FailedPreconditionError("no architecture");
  const absl::Status initial = architecture->initial_weights(config).status();
  absl::Status created;
  for (const bool has_all : {true, false}) {
    FewZeros tensors(has_all);
    created = architecture->create(config, tensors, "cpu").status();
    if (created.code() == absl::StatusCode::kInternal) return created;
  }
  return initial.ok() ? created : initial;
}

// As models::LoadModelFolder reads a folder.
absl::Status ReadText(const std::string& text) {
  ESS_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJson(text, "config.json"));
  if (!json.is_object()) return absl::DataLossError("not an object");
  const models::ConfigReader config(json);
  if (config.Has("model_type")) return ReadModel(config);
  const auto translate = models::IsMambaSsmConfig(config) ? models::TranslateMambaSsmConfig
                                                          : models::TranslateMistralMambaConfig;
  ESS_ASSIGN_OR_RETURN(const models::TranslatedConfig translated, translate(config));
  return ReadModel(
      models::ConfigReader(translated.values, /*path=*/"", "config.json", &translated.names));
}

}  // namespace

std::vector<std::string> Seeds() {
  std::vector<std::string> seeds = {
      R"({"d_model":8,"n_layer":2,"vocab_size":31,"ssm_cfg":{"layer":"Mamba2"},)"
      R"("rms_norm":true,"residual_in_fp32":true,"fused_add_norm":true,)"
      R"("pad_vocab_size_multiple":8,"tie_embeddings":false})",
      R"({"dim":8,"n_layers":2,"vocab_size":31,"n_groups":1,"rms_norm":true,)"
      R"("residual_in_fp32":true,"fused_add_norm":true,"pad_vocab_size_multiple":1,)"
      R"("tie_embeddings":false,"model_type":"mamba"})",
  };
  for (const models::Architecture& architecture : models::Architectures()) {
    seeds.push_back(architecture.tiny_config().dump());
  }
  return seeds;
}

}  // namespace ess::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using absl::StatusCode;
  const std::string text(reinterpret_cast<const char*>(data), size);
  const absl::Status status =
      ess::CatchTorch("config", [&text] { return ess::fuzz::ReadText(text); });
  ess::fuzz::CheckAnswer(status, {StatusCode::kDataLoss, StatusCode::kFailedPrecondition,
                                  StatusCode::kResourceExhausted});
  return 0;
}
