#include "server/models/mamba_ssm_config.h"

#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
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

// A factor as messages name it: its key, or the number that its absence stands for.
std::string NameFactor(const ConfigReader& config, std::string_view key, int64_t value) {
  return config.Has(key) ? config.Name(key) : fmt::format("{}", value);
}

// Sets a key whose value the file has, or implies, under another name.
template <typename Value>
void Set(TranslatedConfig& translated, const std::string& key, std::string name, Value value) {
  translated.values[key] = std::move(value);
  translated.names[key] = std::move(name);
}

// `width`: the channels, which messages call `width_name`.
absl::Status TranslateMamba2(const ConfigReader& config, const ConfigReader& mixer, int64_t width,
                             const std::string& width_name, TranslatedConfig& translated) {
  ESS_RETURN_IF_ERROR(CheckMamba2Options(mixer, width));
  ESS_ASSIGN_OR_RETURN(const int64_t head_dim, mixer.Size("headdim", 64));
  if (mixer.Has("headdim") && width % head_dim != 0) {
    return mixer.Unsupported("headdim", fmt::format("divisors of {}, the channels", width));
  }
  const std::string head_dim_name = NameFactor(mixer, "headdim", head_dim);
  if (width % head_dim != 0) {
    return config.UnsupportedValue(width_name, static_cast<double>(width),
                                   fmt::format("multiples of {}, the size of a head", head_dim));
  }
  Set(translated, "head_dim", head_dim_name, head_dim);
  Set(translated, "num_heads", fmt::format("{} / {}", width_name, head_dim_name), width / head_dim);
  ESS_ASSIGN_OR_RETURN(const auto limit, mixer.Bounds("dt_limit"));
  const auto written = [](double bound) {
    return std::isinf(bound) ? nlohmann::json(bound > 0 ? "Infinity" : "-Infinity")
                             : nlohmann::json(bound);
  };
  Set(translated, "time_step_limit", mixer.Name("dt_limit"),
      nlohmann::json::array({written(limit.first), written(limit.second)}));
  return absl::OkStatus();
}

absl::Status TranslateMamba(const ConfigReader& mixer, TranslatedConfig& translated) {
  if (mixer.String("dt_rank", "auto").value_or("") == "auto") return absl::OkStatus();
  ESS_ASSIGN_OR_RETURN(const int64_t rank, mixer.Size("dt_rank", std::nullopt));
  Set(translated, "time_step_rank", mixer.Name("dt_rank"), rank);
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

// Sizes and options of the stack. Returns the width of its layers.
absl::StatusOr<int64_t> TranslateStack(const ConfigReader& config, const StackKeys& keys,
                                       TranslatedConfig& translated) {
  ESS_ASSIGN_OR_RETURN(const int64_t hidden_size, config.Size(keys.hidden_size, std::nullopt));
  ESS_ASSIGN_OR_RETURN(const int64_t layer_count,
                       config.Size(keys.layer_count, std::nullopt, kMaxLayers));
  ESS_RETURN_IF_ERROR(CheckStack(config, layer_count));
  Set(translated, "hidden_size", config.Name(keys.hidden_size), hidden_size);
  Set(translated, "num_hidden_layers", config.Name(keys.layer_count), layer_count);
  ESS_ASSIGN_OR_RETURN(const int64_t tokens, config.Size("vocab_size", 50277));
  ESS_ASSIGN_OR_RETURN(const int64_t multiple, config.Size("pad_vocab_size_multiple", 8));
  Set(translated, "vocab_size", "vocab_size in multiples of pad_vocab_size_multiple",
      (tokens + multiple - 1) / multiple * multiple);
  ESS_ASSIGN_OR_RETURN(const bool tied, config.Bool("tie_embeddings", keys.ties_embeddings));
  Set(translated, "tie_word_embeddings", config.Name("tie_embeddings"), tied);
  return hidden_size;
}

// `group_count`: heads that share B and C, of Mamba-2's mixers, and its key in the file; none:
// Mamba's.
absl::StatusOr<TranslatedConfig> Translate(
    const ConfigReader& config, const StackKeys& keys, const ConfigReader& mixer,
    const std::optional<std::pair<std::string, int64_t>>& group_count) {
  const bool is_mamba2 = group_count.has_value();
  TranslatedConfig translated;
  translated.values["model_type"] = is_mamba2 ? "mamba2" : "mamba";
  ESS_ASSIGN_OR_RETURN(const int64_t hidden_size, TranslateStack(config, keys, translated));
  ESS_ASSIGN_OR_RETURN(const int64_t states, mixer.Size("d_state", is_mamba2 ? 128 : 16));
  ESS_ASSIGN_OR_RETURN(const int64_t taps, mixer.Size("d_conv", 4));
  ESS_ASSIGN_OR_RETURN(const bool bias, mixer.Bool("bias", false));
  ESS_ASSIGN_OR_RETURN(const bool convolution_bias, mixer.Bool("conv_bias", true));
  ESS_ASSIGN_OR_RETURN(const int64_t expand, mixer.Size("expand", 2));
  const std::string width_name =
      fmt::format("{} * {}", NameFactor(mixer, "expand", expand), config.Name(keys.hidden_size));
  if (expand > kMaxConfigSize / hidden_size) {
    return config.Unsupported(keys.hidden_size,
                              fmt::format("{} up to {}", width_name, kMaxConfigSize));
  }
  Set(translated, "state_size", mixer.Name("d_state"), states);
  Set(translated, "conv_kernel", mixer.Name("d_conv"), taps);
  Set(translated, "expand", mixer.Name("expand"), expand);
  Set(translated, "use_bias", mixer.Name("bias"), bias);
  Set(translated, "use_conv_bias", mixer.Name("conv_bias"), convolution_bias);
  if (!is_mamba2) {
    ESS_RETURN_IF_ERROR(TranslateMamba(mixer, translated));
    return translated;
  }
  Set(translated, "n_groups", group_count->first, group_count->second);
  ESS_RETURN_IF_ERROR(TranslateMamba2(config, mixer, expand * hidden_size, width_name, translated));
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

absl::StatusOr<TranslatedConfig> TranslateMambaSsmConfig(const ConfigReader& config) {
  ESS_ASSIGN_OR_RETURN(const std::optional<ConfigReader> given, config.Object("ssm_cfg"));
  const ConfigReader mixer = given.value_or(ConfigReader(NoKeys(), "ssm_cfg"));
  ESS_ASSIGN_OR_RETURN(const std::string layer,
                       mixer.Choice("layer", "Mamba1", {"Mamba1", "Mamba2"}));
  ESS_ASSIGN_OR_RETURN(const int64_t groups, mixer.Size("ngroups", 1));
  return Translate(
      config, {.hidden_size = "d_model", .layer_count = "n_layer"}, mixer,
      layer == "Mamba2" ? std::optional(std::pair(mixer.Name("ngroups"), groups)) : std::nullopt);
}

absl::StatusOr<TranslatedConfig> TranslateMistralMambaConfig(const ConfigReader& params) {
  ESS_RETURN_IF_ERROR(params.Choice("model_type", "mamba", {"mamba"}).status());
  ESS_ASSIGN_OR_RETURN(const int64_t groups, params.Size("n_groups", std::nullopt));
  return Translate(params,
                   {.hidden_size = "dim", .layer_count = "n_layers", .ties_embeddings = false},
                   ConfigReader(NoKeys()), std::pair(params.Name("n_groups"), groups));
}

}  // namespace ess::models
