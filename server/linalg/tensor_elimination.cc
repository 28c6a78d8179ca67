#include "server/linalg/tensor_elimination.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "server/base/log.h"
#include "server/base/status_macros.h"

namespace ess::linalg {
namespace {

// Rows of a symmetric update that are cut off together: more parts do less work in vain, but their
// products are smaller.
constexpr int64_t kSmallestPart = 64;
constexpr int64_t kMostParts = 4;

// Of symmetric blocks P = L D L^T.
struct BlockFactors {
  at::Tensor inverse;         // [N, block, block]: L^-1.
  at::Tensor pivots;          // [N, block]: the diagonal of D.
  at::Tensor inverse_pivots;  // [N, block]
  at::Tensor growth;          // [N]: largest |u v| inside the block.
};

// The batch is the last axis, so that every step is a product of contiguous rows. P and I are
// eliminated side by side: row k of the part that was I ends at column k, hence each step touches
// `block` columns.
BlockFactors FactorBlocks(const at::Tensor& blocks) {
  const int64_t width = blocks.size(1);
  const at::Tensor work = at::zeros({width, 2 * width, blocks.size(0)}, blocks.options());
  work.slice(1, 0, width).copy_(blocks.permute({1, 2, 0}));
  work.slice(1, width).diagonal(0, 0, 1).fill_(1);
  const at::Tensor inverse_pivots = at::empty({width, blocks.size(0)}, blocks.options());
  for (int64_t k = 0; k < width; ++k) {
    at::Tensor inverse_pivot = inverse_pivots.select(0, k);
    at::reciprocal_out(inverse_pivot, work.select(0, k).select(0, k));
    if (k + 1 == width) break;
    const at::Tensor row = work.select(0, k).slice(0, k + 1, k + 1 + width);
    const at::Tensor multipliers = row.slice(0, 0, width - k - 1) * inverse_pivot;
    work.slice(0, k + 1)
        .slice(1, k + 1, k + 1 + width)
        .addcmul_(multipliers.unsqueeze(1), row.unsqueeze(0), -1);
  }
  const at::Tensor pivots = work.diagonal(0, 0, 1).slice(1, 0, width).contiguous();  // [N, block]
  // [block, N]: the largest |u| of each pivot row.
  const at::Tensor largest = work.slice(1, 0, width).permute({2, 0, 1}).triu(1).abs().amax({2}).t();
  return {.inverse = work.slice(1, width).permute({2, 0, 1}).contiguous(),
          .pivots = pivots,
          .inverse_pivots = inverse_pivots.t().contiguous(),
          .growth = (largest * largest * inverse_pivots.abs()).amax({0})};
}

}  // namespace

at::Tensor SumPivots(const at::Tensor& pivots, PivotSum sum) {
  if (sum == PivotSum::kLogAbs) return pivots.abs().log_().sum({-1});
  return pivots.lt(0).sum({-1}, /*keepdim=*/false, at::kDouble);
}

void SubtractUpperProduct(const at::Tensor& target, const at::Tensor& v, const at::Tensor& u) {
  const int64_t width = target.size(1);
  const int64_t columns = target.size(2);
  const int64_t parts = std::clamp<int64_t>(width / kSmallestPart, 1, kMostParts);
  for (int64_t part = 0; part < parts; ++part) {
    const int64_t first = part * width / parts;
    const int64_t last = (part + 1) * width / parts;
    const int64_t end = columns == width ? columns : columns - first;
    target.slice(1, first, last)
        .slice(2, first, end)
        .baddbmm_(v.slice(2, first, last).mT(), u.slice(2, first, end), 1, -1);
  }
}

absl::Status EliminatePanel(const at::Tensor& rows, int64_t block, PivotSum sum,
                            const CancellationToken& cancellation, TensorPanel& panel) {
  const int64_t pivots = rows.size(1);
  ESS_CHECK(block <= kTensorBlock && pivots % block == 0 && rows.size(2) >= pivots);
  panel.u = at::empty(rows.sizes(), rows.options());
  panel.v = at::empty(rows.sizes(), rows.options());
  panel.pivots = {.sums = at::zeros({rows.size(0)}, rows.options()),
                  .growth = at::zeros({rows.size(0)}, rows.options())};
  for (int64_t first = 0; first < pivots; first += block) {
    ESS_RETURN_IF_ERROR(cancellation.Check());
    const int64_t last = first + block;
    at::Tensor rest = rows.slice(1, first, last).slice(2, first);
    if (first > 0) {
      rest = at::baddbmm(rest, panel.v.slice(1, 0, first).slice(2, first, last).mT(),
                         panel.u.slice(1, 0, first).slice(2, first), 1, -1);
    }
    const BlockFactors factors = FactorBlocks(rest.slice(2, 0, block));
    panel.pivots.sums += SumPivots(factors.pivots, sum);
    at::Tensor growth = factors.growth;
    if (last < rows.size(2)) {
      const at::Tensor u = factors.inverse.bmm(rest.slice(2, block));  // [N, block, right of P_kk]
      const at::Tensor inverse_pivots = factors.inverse_pivots.unsqueeze(2);
      panel.u.slice(1, first, last).slice(2, last).copy_(u);
      at::Tensor v = panel.v.slice(1, first, last).slice(2, last);
      at::mul_out(v, u, inverse_pivots);
      const at::Tensor largest =
          at::linalg_vector_norm(u, std::numeric_limits<double>::infinity(), at::IntArrayRef{2});
      growth = at::maximum(growth, (largest * largest * factors.inverse_pivots.abs()).amax({1}));
    }
    panel.pivots.growth = at::maximum(panel.pivots.growth, growth);
  }
  return absl::OkStatus();
}

}  // namespace ess::linalg
