#include "server/models/layers/latent_attention.h"

#include <ATen/ATen.h>

#include <optional>
#include <vector>

#include "server/base/status_macros.h"
#include "server/models/layers/attention.h"
#include "server/models/layers/linear.h"
#include "server/models/layers/rms_norm.h"

namespace ess::models {
namespace {

// Of the latent vectors, whatever rms_norm_eps says.
constexpr double kNormEpsilon = 1e-6;

Linear Reordered(const Linear& linear, const std::vector<int64_t>& rows) {
  const at::Tensor order = at::tensor(rows, at::kLong).to(linear.weight.device());
  return {.weight = linear.weight.index_select(0, order),
          .bias = linear.bias.defined() ? linear.bias.index_select(0, order) : linear.bias};
}

class LatentAttention final : public AttentionLayer {
 public:
  explicit LatentAttention(const LatentAttentionConfig& config) : config_(config) {}

  absl::Status Take(TensorSource& source, const std::string& module) {
    ESS_RETURN_IF_ERROR(TakeQuery(source, module));
    const int64_t rank = config_.key_value_rank;
    ESS_ASSIGN_OR_RETURN(
        const std::vector<Linear> parts,
        TakeFusedLinear(source, module + "kv_a_proj_with_mqa", {rank, config_.rotary_dim},
                        config_.hidden_size, config_.bias));
    latent_ = parts[0];
    rotary_key_ = Reordered(parts[1], RotaryRows(0));
    ESS_ASSIGN_OR_RETURN(latent_norm_,
                         TakeRmsNorm(source, module + "kv_a_layernorm", rank, kNormEpsilon));
    ESS_ASSIGN_OR_RETURN(
        expand_, TakeLinear(source, module + "kv_b_proj",
                            config_.head_count * (config_.plain_dim + config_.value_dim), rank,
                            /*bias=*/false));
    return absl::OkStatus();
  }

  absl::StatusOr<at::Tensor> Attend(const at::Tensor& x, const RotaryTable& rotary, int64_t mixer,
                                    ForwardPass& pass) const override {
    const auto heads = [&](const at::Tensor& rows) {  // [L, H n] => [L, H, n]
      return rows.view({x.size(0), config_.head_count, -1});
    };
    const at::Tensor wide = x.to(at::kFloat);  // Of what attention scores.
    const at::Tensor queries =
        heads(query_(query_latent_ ? query_norm_((*query_latent_)(wide)) : wide));
    const at::Tensor expanded = heads(expand_(latent_norm_(latent_(wide))));
    const auto part = [&](int64_t first, int64_t count) {  // => [H, L, count]
      return expanded.narrow(2, first, count).transpose(0, 1);
    };
    at::Tensor keys = at::empty(
        {config_.head_count, x.size(0), config_.rotary_dim + config_.plain_dim}, queries.options());
    keys.narrow(2, 0, config_.rotary_dim)
        .copy_(RotateHeads(rotary_key_(wide).unsqueeze(1), rotary));
    keys.narrow(2, config_.rotary_dim, config_.plain_dim).copy_(part(0, config_.plain_dim));
    const AttentionInputs inputs = {
        .queries = RotateHeads(queries, rotary),
        .keys = keys,
        .values = part(config_.plain_dim, config_.value_dim).to(x.scalar_type()),
        .scale = config_.scale};
    return CausalAttention(inputs, mixer, pass);
  }

 private:
  absl::Status TakeQuery(TensorSource& source, const std::string& module) {
    const int64_t rows = config_.head_count * (config_.plain_dim + config_.rotary_dim);
    const bool direct = config_.query_rank == 0;
    if (!direct) {
      ESS_ASSIGN_OR_RETURN(query_latent_,
                           TakeLinear(source, module + "q_a_proj", config_.query_rank,
                                      config_.hidden_size, config_.bias));
      ESS_ASSIGN_OR_RETURN(query_norm_, TakeRmsNorm(source, module + "q_a_layernorm",
                                                    config_.query_rank, kNormEpsilon));
    }
    ESS_ASSIGN_OR_RETURN(const Linear stored,
                         TakeLinear(source, module + (direct ? "q_proj" : "q_b_proj"), rows,
                                    direct ? config_.hidden_size : config_.query_rank,
                                    /*bias=*/false));
    // The checkpoint has the dimensions that rotate last in each head; RotateHeads has them first.
    std::vector<int64_t> order;
    for (int64_t head = 0; head < config_.head_count; ++head) {
      const int64_t first = head * (config_.plain_dim + config_.rotary_dim);
      const std::vector<int64_t> rotary = RotaryRows(first + config_.plain_dim);
      order.insert(order.end(), rotary.begin(), rotary.end());
      for (int64_t row = 0; row < config_.plain_dim; ++row) order.push_back(first + row);
    }
    query_ = Reordered(stored, order);
    return absl::OkStatus();
  }

  // Rows [first, first + rotary_dim) so that those of a pair are half of them apart. Queries and
  // keys change their order alike, so scores stay.
  std::vector<int64_t> RotaryRows(int64_t first) const {
    const int64_t pairs = config_.rotary_dim / 2;
    std::vector<int64_t> rows;
    for (int64_t row = 0; row < config_.rotary_dim; ++row) {
      rows.push_back(first + (config_.interleaved ? row % pairs * 2 + row / pairs : row));
    }
    return rows;
  }

  const LatentAttentionConfig config_;
  std::optional<Linear> query_latent_;  // [query_rank, D]
  RmsNorm query_norm_;                  // With it.
  Linear query_;                        // [H (rotary_dim + plain_dim), query_rank or D]
  Linear latent_;                       // [R, D]
  RmsNorm latent_norm_;
  Linear rotary_key_;  // [rotary_dim, D]
  Linear expand_;      // [H (plain_dim + dv), R]
};

}  // namespace

absl::StatusOr<std::unique_ptr<AttentionLayer>> TakeLatentAttention(
    TensorSource& source, const std::string& module, const LatentAttentionConfig& config) {
  auto layer = std::make_unique<LatentAttention>(config);
  ESS_RETURN_IF_ERROR(layer->Take(source, module));
  return layer;
}

}  // namespace ess::models
