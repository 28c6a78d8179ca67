#include "server/models/mamba_ssm_config.h"

#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "fmt/format.h"
#include "server/base/status_macros.h"

namespace ess::models {
namespace {

// What a mixer must be for transformers' to equal it.
absl::Status CheckMamba2Options(const ConfigReader& mixer, int64_t width) {
  ESS_RETURN_IF_ERROR(mixer.RefuseTrue("norm_before_gate"));
  ESS_RETURN_IF_ERROR(mixer.RefuseTrue("D_has_hdim"));
  ESS_ASSIGN_OR_RETURN(const bool normed, mixer.Bool("rmsnorm", true));
  if (!normed) return mixer.Unsupported("rmsnorm", "true");
  ESS_ASSIGN_OR_RETURN(const int64_t scanned, mixer.Size("d_ssm", width));
  if (scanned != width) return mixer.Unsupported("d_ssm", fmt::format("{}, all channels", width));
  return absl::OkStatus();
}

absl::Status TranslateMamba2(const ConfigReader& mixer, int64_t width, nlohmann::json& translated) {
  ESS_RETURN_IF_ERROR(CheckMamba2Options(mixer, width));
  ESS_ASSIGN_OR_RETURN(const int64_t head_dim, mixer.Size("headdim", 64));
  if (width % head_dim != 0) {
    return mixer.Unsupported("headdim", fmt::format("divisors of {}, the channels", width));
  }
  translated["head_dim"] = head_dim;
  translated["num_heads"] = width / head_dim;
  ESS_ASSIGN_OR_RETURN(const auto limit, mixer.Bounds("dt_limit"));
  const auto written = [](double bound) {
    return std::isinf(bound) ? nlohmann::json(bound > 0 ? "Infinity" : "-Infinity")
                             : nlohmann::json(bound);
  };
  translated["time_step_limit"] =
      nlohmann::json::array({written(limit.first), written(limit.second)});
  return absl::OkStatus();
}

absl::Status TranslateMamba(const ConfigReader& mixer, nlohmann::json& translated) {
  if (mixer.String("dt_rank", "auto").value_or("") == "auto") return absl::OkStatus();
  ESS_ASSIGN_OR_RETURN(translated["time_step_rank"], mixer.Size("dt_rank", std::nullopt));
  return absl::OkStatus();
}

// Layers that are all Mamba's, with RMS norms.
absl::Status CheckStack(const ConfigReader& config, int64_t layer_count) {
  ESS_ASSIGN_OR_RETURN(const bool rms_norm, config.Bool("rms_norm", true));
  if (!rms_norm) return config.Unsupported("rms_norm", "true");
  ESS_ASSIGN_OR_RETURN(const int64_t inner, config.Count("d_intermediate", 0));
  if (inner != 0) return config.Unsupported("d_intermediate", "0");
  ESS_ASSIGN_OR_RETURN(const std::vector<int64_t> attention,
                       config.Indices("attn_layer_idx", layer_count));
  return attention.empty() ? absl::OkStatus() : config.Unsupported("attn_layer_idx", "[]");
}

// How the two formats differ.
struct StackKeys {
  std::string_view hidden_size, layer_count;
  bool ties_embeddings = true;  // Where tie_embeddings is absent.
};

// `group_count`: heads that share B and C, of Mamba-2's mixers; none: Mamba's.
absl::StatusOr<nlohmann::json> Translate(const ConfigReader& config, const StackKeys& keys,
                                         const ConfigReader& mixer,
                                         std::optional<int64_t> group_count) {
  const bool is_mamba2 = group_count.has_value();
  nlohmann::json translated = {{"model_type", is_mamba2 ? "mamba2" : "mamba"}};
  ESS_ASSIGN_OR_RETURN(const int64_t hidden_size, config.Size(keys.hidden_size, std::nullopt));
  ESS_ASSIGN_OR_RETURN(const int64_t layer_count,
                       config.Size(keys.layer_count, std::nullopt, kMaxLayers));
  ESS_RETURN_IF_ERROR(CheckStack(config, layer_count));
  translated["hidden_size"] = hidden_size;
  translated["num_hidden_layers"] = layer_count;
  ESS_ASSIGN_OR_RETURN(const int64_t tokens, config.Size("vocab_size", 50277));
  ESS_ASSIGN_OR_RETURN(const int64_t multiple, config.Size("pad_vocab_size_multiple", 8));
  translated["vocab_size"] = (tokens + multiple - 1) / multiple * multiple;
  ESS_ASSIGN_OR_RETURN(translated["tie_word_embeddings"],
                       config.Bool("tie_embeddings", keys.ties_embeddings));
  ESS_ASSIGN_OR_RETURN(translated["state_size"], mixer.Size("d_state", is_mamba2 ? 128 : 16));
  ESS_ASSIGN_OR_RETURN(translated["conv_kernel"], mixer.Size("d_conv", 4));
  ESS_ASSIGN_OR_RETURN(const int64_t expand, mixer.Size("expand", 2));
  translated["expand"] = expand;
  ESS_ASSIGN_OR_RETURN(translated["use_bias"], mixer.Bool("bias", false));
  ESS_ASSIGN_OR_RETURN(translated["use_conv_bias"], mixer.Bool("conv_bias", true));
  if (!is_mamba2) {
    ESS_RETURN_IF_ERROR(TranslateMamba(mixer, translated));
    return translated;
  }
  translated["n_groups"] = *group_count;
  ESS_RETURN_IF_ERROR(TranslateMamba2(mixer, expand * hidden_size, translated));
  return translated;
}

const nlohmann::json& NoKeys() {
  static const auto& empty = *new nlohmann::json(nlohmann::json::object());
  return empty;
}

}  // namespace

bool IsMambaSsmConfig(const ConfigReader& config) {
  return !config.Has("model_type") && config.Has("d_model") && config.Has("n_layer");
}

absl::StatusOr<nlohmann::json> TranslateMambaSsmConfig(const ConfigReader& config) {
  ESS_ASSIGN_OR_RETURN(const std::optional<ConfigReader> given, config.Object("ssm_cfg"));
  const ConfigReader mixer = given.value_or(ConfigReader(NoKeys()));
  ESS_ASSIGN_OR_RETURN(const std::string layer,
                       mixer.Choice("layer", "Mamba1", {"Mamba1", "Mamba2"}));
  ESS_ASSIGN_OR_RETURN(const int64_t groups, mixer.Size("ngroups", 1));
  return Translate(config, {.hidden_size = "d_model", .layer_count = "n_layer"}, mixer,
                   layer == "Mamba2" ? std::optional(groups) : std::nullopt);
}

absl::StatusOr<nlohmann::json> TranslateMistralMambaConfig(const ConfigReader& params) {
  ESS_RETURN_IF_ERROR(params.Choice("model_type", "mamba", {"mamba"}).status());
  ESS_ASSIGN_OR_RETURN(const int64_t groups, params.Size("n_groups", std::nullopt));
  return Translate(params,
                   {.hidden_size = "dim", .layer_count = "n_layers", .ties_embeddings = false},
                   ConfigReader(NoKeys()), groups);
}

}  // namespace ess::models
