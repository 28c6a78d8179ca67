#include "server/models/layers/attention.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/operators/banded_operator.h"
#include "server/operators/dense_operator.h"
#include "server/operators/state_size.h"

namespace ess::models {
namespace {

// Heads [first, first + count): whole groups that share key/value heads, or a part of one group.
struct HeadGroup {
  int64_t first = 0;
  int64_t count = 0;
  int64_t first_shared = 0;  // Key/value heads.
  int64_t shared_count = 0;
};

HeadGroup NextHeadGroup(int64_t first, int64_t head_count, int64_t heads_per_shared,
                        int64_t length) {
  const int64_t map_bytes = length * length * static_cast<int64_t>(sizeof(float));
  const int64_t most = std::max<int64_t>(kMaxMapBytes / map_bytes, 1);
  const int64_t first_shared = first / heads_per_shared;
  if (most >= heads_per_shared) {
    const int64_t count = std::min(most / heads_per_shared * heads_per_shared, head_count - first);
    return {first, count, first_shared, count / heads_per_shared};
  }
  const int64_t count = std::min(most, (first_shared + 1) * heads_per_shared - first);
  return {first, count, first_shared, 1};
}

// T of the group: [count, L, L].
at::Tensor AttentionMaps(const AttentionInputs& inputs, const HeadGroup& group,
                         AttentionScratch& scratch) {
  const int64_t length = inputs.queries.size(1);
  at::Tensor maps = scratch.Maps(group.count, length, inputs.queries);
  const at::Tensor mask = scratch.CausalMask(length, inputs.window, inputs.queries).expand_as(maps);
  const bool capped = inputs.soft_cap > 0;
  if (!capped) maps.copy_(mask);
  if (inputs.key_bias.defined()) {
    ESS_CHECK(!capped);
    maps.add_(inputs.key_bias.narrow(0, group.first, group.count).unsqueeze(1));
  }
  // The query heads that share a key head are rows of one product: [shared, rows, d].
  const int64_t rows = group.count / group.shared_count * length;
  const at::Tensor queries = inputs.queries.narrow(0, group.first, group.count)
                                 .view({group.shared_count, rows, inputs.queries.size(2)});
  const at::Tensor keys = inputs.keys.narrow(0, group.first_shared, group.shared_count);
  // mask + scale Q K^T: [shared, rows, d] @ [shared, d, L] => [shared, rows, L]
  maps.view({group.shared_count, rows, length})
      .baddbmm_(queries, keys.transpose(1, 2), /*beta=*/capped ? 0 : 1, inputs.scale);
  if (capped) maps.div_(inputs.soft_cap).tanh_().mul_(inputs.soft_cap).add_(mask);
  at::_softmax_out(maps, maps, -1, /*half_to_float=*/false);
  return maps;
}

// The entries within the window, band[h, i, d] = maps[h, i, i - d]: [H, L, W].
at::Tensor BandOf(const at::Tensor& maps, int64_t window) {
  const at::Tensor rows = at::arange(maps.size(1), maps.options().dtype(at::kLong)).unsqueeze(1);
  const at::Tensor back = at::arange(window, rows.options()).unsqueeze(0);
  const at::Tensor columns = rows.sub(back).clamp_min_(0);  // What lies before 0 is not read.
  return maps.gather(2, columns.expand({maps.size(0), -1, -1}));
}

absl::Status Capture(const at::Tensor& maps, const HeadGroup& group, int64_t window, int64_t mixer,
                     ForwardPass& pass) {
  if (window == 0) {
    const operators::DenseOperator op(maps, operators::StateSize::Growing());
    return pass.Accept(mixer, group.first, op);
  }
  const operators::BandedOperator op(BandOf(maps, std::min(window, maps.size(1))));
  return pass.Accept(mixer, group.first, op);
}

}  // namespace

absl::StatusOr<at::Tensor> CausalAttention(const AttentionInputs& given, int64_t mixer,
                                           ForwardPass& pass) {
  // Scores and maps are float32 for weights of any dtype: rounding them to less invents rank.
  AttentionInputs inputs = given;
  inputs.queries = given.queries.to(at::kFloat);
  inputs.keys = given.keys.to(at::kFloat);
  const int64_t head_count = inputs.queries.size(0);
  const int64_t length = inputs.queries.size(1);
  const int64_t value_dim = inputs.values.size(2);
  const int64_t heads_per_shared = head_count / inputs.keys.size(0);
  at::Tensor mixed;
  if (!pass.EndsAfter(mixer)) {
    mixed = at::empty({length, head_count, value_dim}, inputs.values.options());
  }
  for (int64_t first = 0; first < head_count;) {
    ESS_RETURN_IF_ERROR(pass.CheckCancellation());
    const HeadGroup group = NextHeadGroup(first, head_count, heads_per_shared, length);
    const at::Tensor maps = AttentionMaps(inputs, group, pass.attention_scratch());
    if (pass.Wants(mixer)) {
      ESS_RETURN_IF_ERROR(Capture(maps, group, inputs.window, mixer, pass));
    }
    if (mixed.defined()) {
      // [shared, rows, L] @ [shared, L, dv] => [count, L, dv]
      const at::Tensor values = inputs.values.narrow(0, group.first_shared, group.shared_count);
      const at::Tensor weights = maps.view({group.shared_count, -1, length});
      const at::Tensor product =
          at::bmm(weights.to(values.scalar_type()), values).view({group.count, length, value_dim});
      mixed.narrow(1, first, group.count).copy_(product.transpose(0, 1));
    }
    first += group.count;
  }
  return mixed.defined() ? mixed.view({length, head_count * value_dim}) : mixed;
}

}  // namespace ess::models
