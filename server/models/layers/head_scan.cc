#include "server/models/layers/head_scan.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "server/base/status_macros.h"
#include "server/models/layers/attention.h"

namespace ess::models {
namespace {

// exp of it is 0 in float32, and sums of a chunk of them stay finite.
constexpr double kLogOfNothing = -200;

}  // namespace

at::Tensor HeadsOf(const at::Tensor& x, int64_t head_count, int64_t first, int64_t count) {
  const int64_t groups = x.size(1);
  if (groups == head_count) return x.narrow(1, first, count).transpose(0, 1);
  if (groups == 1) {
    std::vector<int64_t> shape = x.sizes().vec();
    shape[1] = count;
    return x.expand(shape).transpose(0, 1);
  }
  const at::Tensor heads = at::arange(first, first + count, x.options().dtype(at::kLong));
  return x.index_select(1, heads.mul(groups).floor_divide(head_count)).transpose(0, 1);
}

at::Tensor ChunkOf(const at::Tensor& x, int64_t head_count, int64_t first, int64_t count) {
  return HeadsOf(x.narrow(0, first, count).to(at::kFloat), head_count, 0, head_count);
}

at::Tensor LogGatesOf(const at::Tensor& x, int64_t head_count, int64_t first, int64_t count) {
  const at::Tensor gates = x.narrow(0, first, count).to(at::kDouble).clamp_min(kLogOfNothing);
  return HeadsOf(gates, head_count, 0, head_count);
}

at::Tensor DecaysBetween(const at::Tensor& to, const at::Tensor& from, int64_t diagonal) {
  const int64_t size = to.size(1);
  const at::Tensor above = at::ones({size, size}, to.options().dtype(at::kBool)).triu(diagonal + 1);
  return to.unsqueeze(2)
      .sub(from.unsqueeze(1))
      .to(at::kFloat)
      .masked_fill_(above.unsqueeze(2), -std::numeric_limits<double>::infinity())
      .exp_();
}

at::Tensor DecayedProducts(const at::Tensor& left, const at::Tensor& decays,
                           const at::Tensor& right) {
  if (decays.size(3) == 1) return at::bmm(left, right.transpose(1, 2)).mul_(decays.squeeze(3));
  // [H, q, q, N] @ [H, q, N, 1] after the right side went into the decays.
  return at::matmul(decays.mul(right.unsqueeze(1)), left.unsqueeze(3)).squeeze(3);
}

absl::Status ForHeadGroups(int64_t head_count, int64_t numbers_per_head, const ForwardPass& pass,
                           absl::FunctionRef<absl::Status(int64_t first, int64_t count)> accept) {
  const int64_t head_bytes = numbers_per_head * static_cast<int64_t>(sizeof(double));
  const int64_t most = std::max<int64_t>(kMaxMapBytes / head_bytes, 1);
  for (int64_t first = 0; first < head_count; first += most) {
    ESS_RETURN_IF_ERROR(pass.CheckCancellation());
    ESS_RETURN_IF_ERROR(accept(first, std::min(most, head_count - first)));
  }
  return absl::OkStatus();
}

}  // namespace ess::models
