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

// Measured for N = 8 .. 128 (docs/ess.md): wider windows share more between their positions, and
// narrower ones do less for each.
int64_t ChooseWidth(const StateSpace& space, int64_t width) {
  if (width == 0) width = std::clamp(RoundUpToBlock(space.states() / 2), int64_t{16}, int64_t{64});
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
  if (!all_.windows.empty()) return absl::OkStatus();
  const int64_t states = RoundUpToBlock(space_->states());
  arena_.Reserve(
      std::max({CarryFactorScratch(space_->transition_kind(), states, width_),
                DescribeWindowScratch(states, width_), EliminateWindowScratch(states, width_),
                WindowNorms::Scratch(states, width_),
                MultiplyScratch({.rows = states, .columns = states, .depth = states})}));
  const SquareRootFactor none(space_->states());
  ESS_ASSIGN_OR_RETURN(all_, MakeChain(0, length(), width_, none, none, cancellation));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<RecurrentWindow>> RecurrentWindows::Split(
    const RecurrentWindow& window, int64_t width, const CancellationToken& cancellation) {
  ESS_CHECK(width % kBlock == 0 && width <= width_);
  const int64_t k = window.first / width_;
  ESS_ASSIGN_OR_RETURN(Chain parts, MakeChain(window.first, window.first + window.count, width,
                                              all_.past[k], all_.future[k], cancellation));
  return std::move(parts.windows);
}

absl::StatusOr<RecurrentWindows::Chain> RecurrentWindows::MakeChain(
    int64_t first, int64_t last, int64_t width, const SquareRootFactor& past,
    const SquareRootFactor& future, const CancellationToken& cancellation) {
  const TransitionKind kind = space_->transition_kind();
  const int64_t count = (last - first + width - 1) / width;
  std::vector<StateWindow> sources(count);
  Chain chain{.windows = std::vector<RecurrentWindow>(count), .past = {}, .future = {}};
  chain.future.resize(count);
  SquareRootFactor factor = past;
  for (int64_t k = 0; k < count; ++k) {
    ESS_RETURN_IF_ERROR(cancellation.Check());
    RecurrentWindow& window = chain.windows[k];
    window.first = first + k * width;
    window.count = std::min(width, last - window.first);
    window.width = RoundUpToBlock(window.count);
    window.states = factor.padded;
    chain.past.push_back(factor);
    space_->FillWindow(window.first, window.count, sources[k]);
    if (k + 1 < count) {
      CarryFactor(TimeDirection::kForward, kind, sources[k], window.width, factor, arena_);
    }
  }
  factor = future;
  for (int64_t k = count - 1; k >= 0; --k) {
    ESS_RETURN_IF_ERROR(cancellation.Check());
    chain.future[k] = factor;
    DescribeWindow(kind, sources[k], chain.past[k], factor, chain.windows[k], arena_);
    if (k > 0) {
      CarryFactor(TimeDirection::kBackward, kind, sources[k], chain.windows[k].width, factor,
                  arena_);
    }
    sources[k] = {};
  }
  return chain;
}

void RecurrentWindows::Carry(TimeDirection direction, int64_t first, int64_t count,
                             SquareRootFactor& factor) {
  if (count == 0) return;
  space_->FillWindow(first, count, part_);
  CarryFactor(direction, space_->transition_kind(), part_, RoundUpToBlock(count), factor, arena_);
}

std::vector<double> RecurrentWindows::SingularValuesAt(int64_t position) {
  ESS_CHECK(position >= 0 && position < length() && !all_.windows.empty());
  const int64_t k = position / width_;
  const RecurrentWindow& window = all_.windows[k];
  SquareRootFactor past = all_.past[k];
  SquareRootFactor future = all_.future[k];
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
