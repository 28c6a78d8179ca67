#include "server/linalg/tensor_fractions.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "server/base/status_macros.h"
#include "server/linalg/nudged_counts.h"
#include "server/linalg/tensor_elimination.h"

namespace ess::linalg {
namespace {

// Numbers on the device for each entry of a Gram matrix: the matrix, its sum, U, V, intermediates.
constexpr int64_t kNumbersPerEntry = 8;
// Below this the squares underflow.
constexpr double kSmallestNorm = 1e-140;

// Positions [first, last), at most L / 2, of matrices [H, L, L].
struct Window {
  int64_t first;
  int64_t last;
  int64_t size() const { return last - first; }
  int64_t largest() const { return last - 1; }  // Columns of the largest block.
};

// H_i^T H_i of a window's positions: [H, P, K, K], right where both indices are below the position.
at::Tensor Grams(const at::Tensor& matrices, const Window& window) {
  const int64_t columns = window.largest();
  const at::Tensor shared = matrices.slice(1, columns).slice(2, 0, columns);
  const at::Tensor base = shared.mT().bmm(shared).unsqueeze(1);  // The rows of all positions.
  if (window.size() == 1) return base;
  // Position i has the rows from i on: sums from below. The last position has no further row.
  const at::Tensor rows = matrices.slice(1, window.first, columns).slice(2, 0, columns);
  const at::Tensor squares = rows.unsqueeze(3) * rows.unsqueeze(2);  // [H, P - 1, K, K]
  return at::cat({squares.flip({1}), base}, 1).roll(1, 1).cumsum_(1).flip({1});
}

// I - G / tau^2 where a position has a column, I elsewhere; widths are raised to whole blocks.
// Shapes: grams [H, P, K, K], taus [H, P] => [H P, width, width].
at::Tensor Shifted(const at::Tensor& grams, const at::Tensor& taus, const Window& window) {
  const int64_t columns = grams.size(3);
  const at::Tensor index = at::arange(columns, grams.options());
  const at::Tensor positions = at::arange(window.first, window.last, grams.options());
  const at::Tensor inside = index.lt(positions.unsqueeze(1)).to(at::kDouble);  // [P, K]
  const at::Tensor factors = taus.square().reciprocal().neg_();                // [H, P]
  const at::Tensor scaled =
      grams * factors.unsqueeze(2).unsqueeze(3) * inside.unsqueeze(1) * inside.unsqueeze(2);
  const int64_t width = (columns + kTensorBlock - 1) / kTensorBlock * kTensorBlock;
  const int64_t padding = width - columns;
  const at::Tensor result = at::constant_pad_nd(scaled.flatten(0, 1), {0, padding, 0, padding});
  result.diagonal(0, 1, 2).add_(1);
  return result;
}

class FractionCounter {
 public:
  FractionCounter(const TensorChunk& chunk, std::span<const double> fractions,
                  std::span<const double> norms, int64_t byte_budget,
                  const CancellationToken& cancellation)
      : chunk_(chunk),
        fractions_(fractions),
        norms_(norms),
        byte_budget_(byte_budget),
        cancellation_(cancellation) {
    const PositionCounts none{.counts = std::vector<int32_t>(chunk.length(), 0),
                              .doubtful = std::vector<uint8_t>(chunk.length(), 0)};
    counts_.assign(fractions.size(), std::vector<PositionCounts>(chunk.heads(), none));
  }

  absl::StatusOr<std::vector<std::vector<PositionCounts>>> Count() {
    const at::Tensor matrices = chunk_.matrices();
    const int64_t length = chunk_.length();
    ESS_RETURN_IF_ERROR(CountHalf(matrices, length / 2, false));
    // H_{L - i} of the transpose about the other diagonal is H_i^T, reversed.
    ESS_RETURN_IF_ERROR(CountHalf(matrices.flip({1, 2}).mT().contiguous(), (length - 1) / 2, true));
    return std::move(counts_);
  }

 private:
  // Positions 1 ... end of `matrices`, which are L - 1 ... L - end of the chunk's when `reversed`.
  absl::Status CountHalf(const at::Tensor& matrices, int64_t end, bool reversed) {
    int64_t last = end + 1;
    while (last > 1) {
      const int64_t entries = std::max(kTensorBlock * kTensorBlock, last * last);
      const int64_t bytes =
          chunk_.heads() * entries * kNumbersPerEntry * static_cast<int64_t>(sizeof(double));
      const int64_t size = std::max<int64_t>(1, byte_budget_ / bytes);
      const Window window{.first = std::max<int64_t>(1, last - size), .last = last};
      ESS_RETURN_IF_ERROR(CountWindow(matrices, window, reversed));
      last = window.first;
    }
    return absl::OkStatus();
  }

  absl::Status CountWindow(const at::Tensor& matrices, const Window& window, bool reversed) {
    const at::Tensor grams = Grams(matrices, window);
    for (size_t f = 0; f < fractions_.size(); ++f) {
      std::vector<double> taus;
      for (int64_t head = 0; head < chunk_.heads(); ++head) {
        for (int64_t i = window.first; i < window.last; ++i) {
          const double norm = NormAt(head, i, reversed);
          taus.push_back(norm > kSmallestNorm ? fractions_[f] * norm * (1 + kTieNudge) : 1);
        }
      }
      TensorPanel panel;
      ESS_RETURN_IF_ERROR(EliminatePanel(
          Shifted(grams, chunk_.OnDevice(taus, {chunk_.heads(), window.size()}), window),
          kTensorBlock, PivotSum::kNegative, cancellation_, panel));
      const std::vector<double> counts = OnHost(panel.pivots.sums);
      const std::vector<double> growth = OnHost(panel.pivots.growth);
      const double limit = GrowthLimit(1, 1 / fractions_[f]);
      for (int64_t head = 0; head < chunk_.heads(); ++head) {
        for (int64_t i = window.first; i < window.last; ++i) {
          const int64_t member = head * window.size() + i - window.first;
          PositionCounts& result = counts_[f][head];
          const int64_t position = reversed ? chunk_.length() - i : i;
          const double norm = NormAt(head, i, reversed);
          if (norm == 0) continue;
          if (norm > kSmallestNorm && growth[member] <= limit) {
            result.counts[position] = static_cast<int32_t>(counts[member]);
          } else {
            result.doubtful[position] = 1;
          }
        }
      }
    }
    return absl::OkStatus();
  }

  double NormAt(int64_t head, int64_t i, bool reversed) const {
    return norms_[head * chunk_.length() + (reversed ? chunk_.length() - i : i)];
  }

  const TensorChunk& chunk_;
  const std::span<const double> fractions_;
  const std::span<const double> norms_;
  const int64_t byte_budget_;
  const CancellationToken& cancellation_;
  std::vector<std::vector<PositionCounts>> counts_;
};

}  // namespace

absl::StatusOr<std::vector<std::vector<PositionCounts>>> CountAboveFractions(
    const TensorChunk& chunk, std::span<const double> fractions, std::span<const double> norms,
    int64_t byte_budget, const CancellationToken& cancellation) {
  return FractionCounter(chunk, fractions, norms, byte_budget, cancellation).Count();
}

}  // namespace ess::linalg
