#include "server/linalg/stepped_state_space.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "server/base/log.h"
#include "server/linalg/matrix_product.h"

namespace ess::linalg {

void SteppedStateSpace::FillWindow(int64_t first, int64_t width, StateWindow& window) const {
  const int64_t N = states();
  const int64_t P = RoundUpToBlock(N);
  const int64_t W = RoundUpToBlock(width);
  const int64_t count = std::min(width, length() - first);
  ESS_CHECK(first >= 0 && width >= 1 && count >= 1);
  window.Resize(P * P, P, W);
  const int64_t stride = P + W;
  Arena& arena = window.scratch;
  arena.Reserve(2 * P * stride + stride + AdvanceScratch(stride));
  const ArenaScope scope(arena);
  // What is left of the state before the window, and of each input since.
  double* state = arena.Allocate(P * stride);
  double* next = arena.Allocate(P * stride);
  double* seen = arena.Allocate(stride);
  std::fill_n(state, P * stride, 0.0);
  std::fill_n(next, P * stride, 0.0);
  for (int64_t n = 0; n < N; ++n) state[n * stride + n] = 1;
  std::fill(window.output.begin(), window.output.end(), 0.0);

  const auto read = [&](int64_t t) {
    std::fill_n(seen, P + t, 0.0);
    for (int64_t n = 0; n < N; ++n) {
      const double weight = factors_.c[(first + t) * N + n];
      for (int64_t x = 0; x < P + t; ++x) seen[x] += weight * state[n * stride + x];
    }
    std::copy_n(seen, P, window.output.begin() + t * P);
    std::copy_n(seen + P, t, window.inside.begin() + t * W);
  };
  for (int64_t t = 0; t < count; ++t) {
    if (factors_.reads_before) read(t);
    Advance(first + t, P + RoundUpToBlock(t), stride, state, next, arena);
    std::swap(state, next);
    if (!factors_.reads_before) read(t);
    const double weight = InputWeight(first + t);
    for (int64_t n = 0; n < N; ++n) {
      state[n * stride + P + t] = weight * factors_.b[(first + t) * N + n];
    }
  }
  for (int64_t n = 0; n < P; ++n) {
    std::copy_n(state + n * stride, P, window.transition.begin() + n * P);
    std::copy_n(state + n * stride + P, W, window.input.begin() + n * W);
  }
}

void GeneralStateSpace::Advance(int64_t t, int64_t columns, int64_t stride, const double* state,
                                double* next, Arena& arena) const {
  const ArenaScope scope(arena);
  const int64_t N = states();
  const int64_t P = RoundUpToBlock(N);
  const double* transition = PaddedRows(a_, t * N, N, N, P, P, 0, arena);
  MultiplyMatrices({.rows = P, .columns = columns, .depth = P}, {{transition, P}},
                   {{state, stride}}, next, stride, arena);
}

int64_t GeneralStateSpace::AdvanceScratch(int64_t columns) const {
  const int64_t P = RoundUpToBlock(states());
  return P * P + MultiplyScratch({.rows = P, .columns = columns, .depth = P});
}

double LargestGateProduct(const double* gates, int64_t steps, int64_t per_step) {
  double product = 1;
  for (int64_t t = 0; t < steps; ++t) {
    double largest = 1;
    for (int64_t n = 0; n < per_step; ++n) {
      largest = std::max(largest, std::abs(gates[t * per_step + n]));
    }
    product *= largest;
  }
  return product;
}

}  // namespace ess::linalg
