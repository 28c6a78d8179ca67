#include "server/models/llama.h"

#include <ATen/ATen.h>

#include <array>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "server/base/status_macros.h"
#include "server/models/decoder_model.h"
#include "server/models/layers/activation.h"
#include "server/models/layers/attention.h"
#include "server/models/layers/linear.h"
#include "server/models/layers/rms_norm.h"
#include "server/models/layers/rotary.h"
#include "server/models/model_description.h"

namespace ess::models {
namespace {

// Keys and defaults of transformers' LlamaConfig.
struct LlamaConfig {
  int64_t vocabulary_size = 0;    // V
  int64_t hidden_size = 0;        // D
  int64_t intermediate_size = 0;  // I
  int64_t layer_count = 0;
  int64_t head_count = 0;            // H
  int64_t key_value_head_count = 0;  // G
  int64_t head_dim = 0;              // d
  double norm_epsilon = 0;
  bool attention_bias = false;  // On q, k, v and o.
  bool feed_forward_bias = false;
  ActivationInPlace activation = nullptr;
  RotaryScaling rotary;
};

// Head counts and sizes that fit together.
absl::Status ReadHeads(const ConfigReader& config, LlamaConfig& llama) {
  ESS_ASSIGN_OR_RETURN(llama.hidden_size, config.Size("hidden_size", 4096));
  ESS_ASSIGN_OR_RETURN(llama.head_count, config.Size("num_attention_heads", 32));
  ESS_ASSIGN_OR_RETURN(llama.key_value_head_count,
                       config.Size("num_key_value_heads", llama.head_count));
  if (llama.hidden_size % llama.head_count != 0) {
    return ConfigContradiction(
        fmt::format("hidden_size is {}, not a multiple of num_attention_heads = {}",
                    llama.hidden_size, llama.head_count));
  }
  if (llama.head_count % llama.key_value_head_count != 0) {
    return ConfigContradiction(
        fmt::format("num_attention_heads is {}, not a multiple of num_key_value_heads = {}",
                    llama.head_count, llama.key_value_head_count));
  }
  ESS_ASSIGN_OR_RETURN(llama.head_dim,
                       config.Size("head_dim", llama.hidden_size / llama.head_count));
  if (llama.head_dim > kMaxConfigSize / llama.head_count) {
    return config.Unsupported(
        "head_dim", fmt::format("num_attention_heads * head_dim up to {}", kMaxConfigSize));
  }
  return absl::OkStatus();
}

absl::StatusOr<LlamaConfig> ReadLlamaConfig(const ConfigReader& config) {
  LlamaConfig llama;
  ESS_RETURN_IF_ERROR(ReadHeads(config, llama));
  ESS_ASSIGN_OR_RETURN(llama.vocabulary_size, config.Size("vocab_size", 32000));
  ESS_ASSIGN_OR_RETURN(llama.intermediate_size, config.Size("intermediate_size", 11008));
  ESS_ASSIGN_OR_RETURN(llama.layer_count, config.Size("num_hidden_layers", 32));
  ESS_ASSIGN_OR_RETURN(llama.norm_epsilon, config.Number("rms_norm_eps", 1e-6, 0, 1));
  ESS_ASSIGN_OR_RETURN(llama.attention_bias, config.Bool("attention_bias", false));
  ESS_ASSIGN_OR_RETURN(llama.feed_forward_bias, config.Bool("mlp_bias", false));
  ESS_ASSIGN_OR_RETURN(const std::string activation,
                       config.Choice("hidden_act", "silu", ActivationNames()));
  llama.activation = FindActivation(activation);
  ESS_ASSIGN_OR_RETURN(const int64_t max_positions, config.Size("max_position_embeddings", 2048));
  ESS_ASSIGN_OR_RETURN(llama.rotary, ReadRotaryScaling(config, llama.head_dim, max_positions));
  return llama;
}

struct LlamaLayer {
  RmsNorm attention_norm;
  Linear query, key, value, output;
  RmsNorm feed_forward_norm;
  Linear gate, up, down;
};

absl::StatusOr<LlamaLayer> TakeLlamaLayer(TensorSource& tensors, const LlamaConfig& llama,
                                          int64_t layer_index) {
  const int64_t width = llama.hidden_size;
  const int64_t query_width = llama.head_count * llama.head_dim;
  const int64_t key_width = llama.key_value_head_count * llama.head_dim;
  const std::string layer = fmt::format("layers.{}.", layer_index);
  const std::string attention = layer + "self_attn.";
  const std::string feed_forward = layer + "mlp.";
  const bool bias = llama.attention_bias;

  LlamaLayer weights;
  ESS_ASSIGN_OR_RETURN(weights.attention_norm,
                       TakeRmsNorm(tensors, layer + "input_layernorm", width, llama.norm_epsilon));
  ESS_ASSIGN_OR_RETURN(weights.query,
                       TakeLinear(tensors, attention + "q_proj", query_width, width, bias));
  ESS_ASSIGN_OR_RETURN(weights.key,
                       TakeLinear(tensors, attention + "k_proj", key_width, width, bias));
  ESS_ASSIGN_OR_RETURN(weights.value,
                       TakeLinear(tensors, attention + "v_proj", key_width, width, bias));
  ESS_ASSIGN_OR_RETURN(weights.output,
                       TakeLinear(tensors, attention + "o_proj", width, query_width, bias));
  ESS_ASSIGN_OR_RETURN(
      weights.feed_forward_norm,
      TakeRmsNorm(tensors, layer + "post_attention_layernorm", width, llama.norm_epsilon));
  ESS_ASSIGN_OR_RETURN(
      weights.gate, TakeLinear(tensors, feed_forward + "gate_proj", llama.intermediate_size, width,
                               llama.feed_forward_bias));
  ESS_ASSIGN_OR_RETURN(weights.up,
                       TakeLinear(tensors, feed_forward + "up_proj", llama.intermediate_size, width,
                                  llama.feed_forward_bias));
  ESS_ASSIGN_OR_RETURN(weights.down, TakeLinear(tensors, feed_forward + "down_proj", width,
                                                llama.intermediate_size, llama.feed_forward_bias));
  return weights;
}

class LlamaDecoder final : public Decoder {
 public:
  static absl::StatusOr<std::unique_ptr<LlamaDecoder>> Create(const LlamaConfig& config,
                                                              TensorSource& tensors) {
    auto decoder = std::make_unique<LlamaDecoder>();
    decoder->config_ = config;
    const std::array<int64_t, 2> embedding_shape = {config.vocabulary_size, config.hidden_size};
    ESS_ASSIGN_OR_RETURN(decoder->embedding_, tensors.Take("embed_tokens.weight", embedding_shape));
    for (int64_t layer = 0; layer < config.layer_count; ++layer) {
      ESS_ASSIGN_OR_RETURN(LlamaLayer weights, TakeLlamaLayer(tensors, config, layer));
      decoder->layers_.push_back(std::move(weights));
    }
    ESS_ASSIGN_OR_RETURN(decoder->norm_,
                         TakeRmsNorm(tensors, "norm", config.hidden_size, config.norm_epsilon));
    // Tied to the embedding where the checkpoint has none, whatever tie_word_embeddings says.
    decoder->head_.weight = decoder->embedding_;
    if (tensors.Has("lm_head.weight")) {
      ESS_ASSIGN_OR_RETURN(decoder->head_.weight, tensors.Take("lm_head.weight", embedding_shape));
    }
    return decoder;
  }

  PromptState Embed(const at::Tensor& token_ids) const override {
    const int64_t length = token_ids.size(0);
    return {.hidden = at::embedding(embedding_, token_ids),
            .rotary = MakeRotaryTable(config_.rotary, length, embedding_)};
  }

  absl::Status RunLayer(int64_t layer_index, PromptState& state, ForwardPass& pass) const override {
    const LlamaLayer& layer = layers_[static_cast<size_t>(layer_index)];
    ESS_ASSIGN_OR_RETURN(const at::Tensor mixed, Attend(layer, layer_index, state, pass));
    if (pass.EndsAfter(layer_index)) return absl::OkStatus();
    layer.output.AddToInPlace(state.hidden, mixed);

    const at::Tensor x = layer.feed_forward_norm(state.hidden);
    at::Tensor gated = layer.gate(x);  // [L, I]
    config_.activation(gated);
    layer.down.AddToInPlace(state.hidden, gated.mul_(layer.up(x)));
    return absl::OkStatus();
  }

  at::Tensor Logits(const at::Tensor& hidden) const override { return head_(norm_(hidden)); }

 private:
  // [L, D] => [L, H d]
  absl::StatusOr<at::Tensor> Attend(const LlamaLayer& layer, int64_t layer_index,
                                    const PromptState& state, ForwardPass& pass) const {
    const at::Tensor x = layer.attention_norm(state.hidden);
    auto heads = [&](const Linear& projection) {  // [L, D] => [L, heads, d]
      return projection(x).view({x.size(0), -1, config_.head_dim});
    };
    const AttentionInputs inputs = {.queries = RotateHeads(heads(layer.query), state.rotary),
                                    .keys = RotateHeads(heads(layer.key), state.rotary),
                                    .values = heads(layer.value).transpose(0, 1),
                                    .scale = 1 / std::sqrt(static_cast<double>(config_.head_dim))};
    return CausalAttention(inputs, /*mixer=*/layer_index, pass);
  }

  LlamaConfig config_;
  at::Tensor embedding_;  // [V, D]
  std::vector<LlamaLayer> layers_;
  RmsNorm norm_;
  Linear head_;
};

absl::StatusOr<std::unique_ptr<SequenceModel>> CreateLlama(const ConfigReader& config,
                                                           TensorSource& tensors,
                                                           const std::string& device) {
  ESS_ASSIGN_OR_RETURN(const LlamaConfig llama, ReadLlamaConfig(config));
  ESS_ASSIGN_OR_RETURN(auto decoder, LlamaDecoder::Create(llama, tensors));
  ModelDescription description = DescribeModel("llama", device, tensors.Totals());
  description.vocabulary_size = llama.vocabulary_size;
  description.max_positions = llama.rotary.PositionLimit();
  description.hidden_size = llama.hidden_size;
  description.mixers = AttentionMixers(llama.layer_count, llama.head_count, llama.head_dim);
  return std::make_unique<DecoderModel>(std::move(description), llama.layer_count,
                                        std::move(decoder));
}

// Grouped queries, a head_dim of its own, biases and scaled rotary frequencies.
nlohmann::json TinyLlamaConfig() {
  return {{"model_type", "llama"},
          {"vocab_size", 31},
          {"hidden_size", 16},
          {"intermediate_size", 24},
          {"num_hidden_layers", 3},
          {"num_attention_heads", 4},
          {"num_key_value_heads", 2},
          {"head_dim", 6},
          {"attention_bias", true},
          {"mlp_bias", true},
          {"max_position_embeddings", 64},
          {"rope_scaling",
           {{"rope_type", "llama3"},
            {"factor", 8.0},
            {"low_freq_factor", 1.0},
            {"high_freq_factor", 4.0},
            {"original_max_position_embeddings", 32}}}};
}

}  // namespace

Architecture LlamaArchitecture() {
  return {.model_type = "llama",
          .base_prefixes = {"model."},
          .ignored_suffixes = {".rotary_emb.inv_freq"},
          .create = CreateLlama,
          .tiny_config = TinyLlamaConfig};
}

}  // namespace ess::models
