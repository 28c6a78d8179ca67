#include "server/models/rwkv7_initial_weights.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "fmt/format.h"
#include "server/base/status_macros.h"

namespace ess::models {
namespace {

// A value for each of D channels.
Distribution ByChannel(std::function<double(double channel)> value) {
  return {.fill = [value = std::move(value)](const RandomNumbers&, at::Tensor& weight) {
    float* const values = weight.mutable_data_ptr<float>();
    for (int64_t n = 0; n < weight.numel(); ++n) {
      values[n] = static_cast<float>(value(static_cast<double>(n)));
    }
  }};
}

// Of layer `index`: shifts, decays and rates spread over the channels.
std::vector<InitialRule> LayerRules(int64_t index, const RwkvSizes& sizes, int64_t head_dim) {
  const auto width = static_cast<double>(sizes.hidden_size);
  const auto layers = static_cast<double>(sizes.layer_count);
  const auto layer = static_cast<double>(index);
  const double left = 1 - layer / layers;                     // 1 to almost 0.
  const double done = layers > 1 ? layer / (layers - 1) : 0;  // 0 to 1.
  // 0 to 1 over the channels.
  const auto ramp = [=](double n) { return width > 1 ? n / (width - 1) : 0; };
  const auto in_head = [=](double n) {  // -1 to 1 over each head.
    const double half = static_cast<double>(head_dim - 1) / 2;
    const double x = head_dim > 1 ? (std::fmod(n, static_cast<double>(head_dim)) - half) / half : 0;
    return x * std::abs(x);
  };

  const std::string prefix = fmt::format("layers.{}.", index);
  std::vector<InitialRule> rules;
  const auto shift = [&](const std::string& name, double power) {
    rules.push_back({.names = prefix + name, .distribution = ByChannel([=](double n) {
                                               return 1 - std::pow(n / width, power);
                                             })});
  };
  for (const auto& [name, share] : std::vector<std::pair<std::string, double>>{
           {"x_r", 0.2}, {"x_w", 0.9}, {"x_k", 0.7}, {"x_v", 0.7}, {"x_a", 0.9}, {"x_g", 0.2}}) {
    shift("attn." + name, share * left);
  }
  shift("ffn.x_k", std::pow(left, 4));
  rules.push_back({.names = prefix + "attn.w_lora.lora.2.bias",
                   .distribution = ByChannel([=](double n) {
                     const double decay = -6 + 6 * std::pow(ramp(n), 1 + std::pow(done, 0.3));
                     return decay + 0.5 + in_head(n) * 2.5;
                   })});
  rules.push_back({.names = prefix + "attn.a_lora.lora.2.bias",
                   .distribution = ByChannel([=](double n) {
                     return -0.19 + in_head(n) * 0.3 + (ramp(n) - 0.5) * 0.4;
                   })});
  rules.push_back(
      {.names = prefix + "attn.v_lora.lora.2.bias",
       .distribution = ByChannel([=](double n) { return 0.73 - (ramp(n) - 0.5) * 0.4; })});
  rules.push_back({.names = prefix + "attn.k_k", .distribution = ByChannel([=](double n) {
                                                   return 0.71 - (ramp(n) - 0.5) * 0.1;
                                                 })});
  rules.push_back({.names = prefix + "attn.g_norm.weight",
                   .distribution = Constant(std::pow((layer + 1) / layers, 0.7))});
  return rules;
}

}  // namespace

absl::StatusOr<InitialWeights> Rwkv7InitialWeights(const ConfigReader& config,
                                                   const RwkvSizes& sizes, int64_t head_dim) {
  std::vector<InitialRule> rules;
  for (int64_t layer = 0; layer < sizes.layer_count; ++layer) {
    for (InitialRule& rule : LayerRules(layer, sizes, head_dim)) rules.push_back(std::move(rule));
  }
  const double rows = static_cast<double>(sizes.vocabulary_size);
  const double columns = static_cast<double>(sizes.hidden_size);
  const double head_gain = 0.5 * std::sqrt(std::max(rows / columns, 1.0));
  const std::vector<InitialRule> common = {
      {.names = "embeddings.weight", .distribution = Uniform(-1e-4, 1e-4)},
      {.names = "lm_head.weight", .distribution = Orthogonal(head_gain)},
      {.names = "*.lora.0.weight", .distribution = Constant(0)},
      {.names = "*.lora.2.weight", .distribution = LowRankStart()},
      {.names = "*.attn.k_proj.weight", .distribution = Orthogonal(0.1)},
      {.names = "*.attn.r_proj.weight", .distribution = Orthogonal(1)},
      {.names = "*.attn.v_proj.weight", .distribution = Orthogonal(1)},
      {.names = "*.attn.o_proj.weight", .distribution = Constant(0)},
      {.names = "*.attn.k_a", .distribution = Constant(1.02)},
      {.names = "*.attn.r_k", .distribution = Constant(-0.04)},
      {.names = "*.ffn.key.weight", .distribution = Orthogonal(1)},
      {.names = "*.ffn.value.weight", .distribution = Constant(0)}};
  rules.insert(rules.end(), common.begin(), common.end());
  return ReadInitialWeights(config, {}, std::move(rules));
}

}  // namespace ess::models
