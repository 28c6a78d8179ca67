#include "server/linalg/recurrent_windows.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "server/base/log.h"
#include "server/base/status_macros.h"
#include "server/linalg/matrix_product.h"
#include "server/linalg/small_svd.h"
#include "server/linalg/window_norms.h"

namespace ess::linalg {
namespace {

// Measured: between 32 and 64 the elimination of the common block and the tree are in balance.
int64_t ChooseWidth(const StateSpace& space, int64_t width) {
  if (width == 0) width = std::clamp(RoundUpToBlock(space.states()), int64_t{32}, int64_t{64});
  return std::min(width, RoundUpToBlock(space.length()));
}

// Square, row-major; the largest entry is in [0.5, 1), or all are 0. Times 2^exponent.
struct ScaledMatrix {
  std::vector<double> entries;
  int exponent = 0;
};

ScaledMatrix Normalized(std::vector<double> entries) {
  double largest = 0;
  for (const double entry : entries) largest = std::max(largest, std::abs(entry));
  ScaledMatrix result{.entries = std::move(entries)};
  std::frexp(largest, &result.exponent);
  for (double& entry : result.entries) entry = std::ldexp(entry, -result.exponent);
  return result;
}

}  // namespace

RecurrentWindows::RecurrentWindows(std::unique_ptr<const StateSpace> space, int64_t width)
    : space_(std::move(space)), width_(ChooseWidth(*space_, width)) {
  ESS_CHECK(length() >= 1 && space_->states() >= 1 && width_ % kBlock == 0);
}

absl::Status RecurrentWindows::Prepare(const CancellationToken& cancellation) {
  if (!windows_.empty()) return absl::OkStatus();
  const int64_t states = RoundUpToBlock(space_->states());
  const TransitionKind kind = space_->transition_kind();
  arena_.Reserve(
      std::max({CarryFactorScratch(kind, states, width_), DescribeWindowScratch(states, width_),
                EliminateWindowScratch(states, width_), WindowNorms::Scratch(states, width_),
                MultiplyScratch({.rows = states, .columns = states, .depth = states})}));
  const int64_t count = (length() + width_ - 1) / width_;
  std::vector<RecurrentWindow> windows(count);
  std::vector<StateWindow> sources(count);
  past_.clear();
  SquareRootFactor factor(space_->states());
  for (int64_t k = 0; k < count; ++k) {
    ESS_RETURN_IF_ERROR(cancellation.Check());
    const int64_t first = k * width_;
    const int64_t positions = std::min(width_, length() - first);
    windows[k].first = first;
    windows[k].count = positions;
    windows[k].width = RoundUpToBlock(positions);
    windows[k].states = states;
    past_.push_back(factor);
    space_->FillWindow(first, positions, sources[k]);
    if (k + 1 < count) {
      CarryFactor(TimeDirection::kForward, kind, sources[k], windows[k].width, factor, arena_);
    }
  }
  future_.resize(count);
  factor = SquareRootFactor(space_->states());
  for (int64_t k = count - 1; k >= 0; --k) {
    ESS_RETURN_IF_ERROR(cancellation.Check());
    future_[k] = factor;
    DescribeWindow(kind, sources[k], past_[k], factor, windows[k], arena_);
    if (k > 0) {
      CarryFactor(TimeDirection::kBackward, kind, sources[k], windows[k].width, factor, arena_);
    }
    sources[k] = {};
  }
  windows_ = std::move(windows);
  return absl::OkStatus();
}

void RecurrentWindows::Carry(TimeDirection direction, int64_t first, int64_t count,
                             SquareRootFactor& factor) {
  if (count == 0) return;
  space_->FillWindow(first, count, part_);
  CarryFactor(direction, space_->transition_kind(), part_, RoundUpToBlock(count), factor, arena_);
}

std::vector<double> RecurrentWindows::SingularValuesAt(int64_t position) {
  ESS_CHECK(position >= 0 && position < length() && !windows_.empty());
  const int64_t k = position / width_;
  const RecurrentWindow& window = windows_[k];
  SquareRootFactor past = past_[k];
  SquareRootFactor future = future_[k];
  Carry(TimeDirection::kForward, window.first, position - window.first, past);
  Carry(TimeDirection::kBackward, position, window.first + window.count - position, future);
  const int64_t states = window.states;
  std::vector<double> product(states * states);
  MultiplyMatrices({.rows = states, .columns = states, .depth = states}, {future.view()},
                   {past.view(), true}, product.data(), states, arena_);
  ScaledMatrix block = Normalized(std::move(product));
  const Bidiagonal bidiagonal = Bidiagonalize(block.entries, states);
  if (!(bidiagonal.bound > 0)) return {};
  const int64_t count = std::min({position, length() - position, space_->states()});
  std::vector<double> sigma = LargestSingularValues(bidiagonal, count);
  for (double& value : sigma) value = std::ldexp(value, block.exponent);
  return sigma;
}

absl::StatusOr<std::vector<int32_t>> RecurrentWindows::CausalRanks(
    const CancellationToken& cancellation) {
  const int64_t N = space_->states();
  SquareRootFactor factor(N);
  const int64_t states = factor.padded;
  arena_.Reserve(CarryFactorScratch(space_->transition_kind(), states, kBlock));
  std::vector<int32_t> ranks(length(), 0);
  for (int64_t i = 1; i < length(); ++i) {
    ESS_RETURN_IF_ERROR(cancellation.Check());
    Carry(TimeDirection::kForward, i - 1, 1, factor);
    std::vector<double> past(states * states);
    for (int64_t row = 0; row < states; ++row) {
      std::copy_n(factor.entries.begin() + row * factor.stride(), states,
                  past.begin() + row * states);
    }
    ScaledMatrix scaled = Normalized(std::move(past));
    const Bidiagonal bidiagonal = Bidiagonalize(scaled.entries, states);
    if (!(bidiagonal.bound > 0)) continue;
    const double largest = LargestSingularValues(bidiagonal, 1).front();
    const double threshold = static_cast<double>(std::max(N, i)) * 0x1p-52 * largest;
    ranks[i] = static_cast<int32_t>(CountAbove(bidiagonal, threshold));
  }
  return ranks;
}

}  // namespace ess::linalg
