#include "server/linalg/rank_one_state_space.h"

#include <algorithm>

#include "server/base/log.h"
#include "server/linalg/matrix_product.h"

namespace ess::linalg {
namespace {

DiagonalStateSpace Diagonal(const RankOneFactors& factors, const double* input,
                            const double* output, bool reads_before) {
  return DiagonalStateSpace({.length = factors.length,
                             .states = factors.states,
                             .scalar_gate = false,
                             .reads_before = reads_before,
                             .a = factors.w,
                             .b = input,
                             .c = output});
}

void Add(const double* x, int64_t count, double* sum) {
  for (int64_t n = 0; n < count; ++n) sum[n] += x[n];
}

}  // namespace

DiagonalPlusRankOneStateSpace::DiagonalPlusRankOneStateSpace(const RankOneFactors& factors)
    : SteppedStateSpace({.length = factors.length,
                         .states = factors.states,
                         .reads_before = factors.reads_before,
                         .b = factors.k,
                         .c = factors.c}),
      factors_(factors),
      k_to_c_(Diagonal(factors, factors.k, factors.c, factors.reads_before)),
      p_to_c_(Diagonal(factors, factors.p, factors.c, factors.reads_before)),
      k_to_q_(Diagonal(factors, factors.k, factors.q, true)),
      p_to_q_(Diagonal(factors, factors.p, factors.q, true)) {}

void DiagonalPlusRankOneStateSpace::FillWindow(int64_t first, int64_t width,
                                               StateWindow& window) const {
  const int64_t N = factors_.states;
  const int64_t P = RoundUpToBlock(N);
  const int64_t W = RoundUpToBlock(width);
  const int64_t count = std::min(width, factors_.length - first);
  ESS_CHECK(first >= 0 && width >= 1 && count >= 1);
  if (!(LargestGateProduct(factors_.w + first * N, count, N) <= kLargestSafeGrowth)) {
    SteppedStateSpace::FillWindow(first, width, window);
    return;
  }
  window.parts.resize(4);
  StateWindow& k_to_c = window.parts[0];
  StateWindow& p_to_c = window.parts[1];
  StateWindow& k_to_q = window.parts[2];
  StateWindow& p_to_q = window.parts[3];
  k_to_c_.FillWindow(first, width, k_to_c);
  p_to_c_.FillWindow(first, width, p_to_c);
  k_to_q_.FillWindow(first, width, k_to_q);
  p_to_q_.FillWindow(first, width, p_to_q);
  if (!factors_.reads_before) {
    // c_t sees p_t s_t at once.
    for (int64_t t = 0; t < count; ++t) {
      const int64_t row = (first + t) * N;
      double sum = 0;
      for (int64_t n = 0; n < N; ++n) sum += factors_.c[row + n] * factors_.p[row + n];
      p_to_c.inside[t * W + t] = sum;
    }
  }

  window.Resize(P * P, P, W);
  Arena& arena = window.scratch;
  const int64_t longest = std::max(P, W);
  arena.Reserve(2 * W * W + W * P +
                MultiplyScratch({.rows = longest, .columns = longest, .depth = longest}));
  const ArenaScope scope(arena);
  double* inverse = arena.Allocate(W * W);  // s = inverse (q's view of h before + of u).
  double* s_of_input = arena.Allocate(W * W);
  double* s_of_state = arena.Allocate(W * P);
  for (double& entry : p_to_q.inside) entry = -entry;
  std::fill_n(inverse, W * W, 0.0);
  InvertUnitLower(W, p_to_q.inside.data(), inverse);
  ProductSize triangles = {
      .rows = W, .columns = W, .depth = W, .lhs_lower = true, .rhs_lower = true};
  MultiplyMatrices(triangles, {{inverse, W}}, {{k_to_q.inside.data(), W}}, s_of_input, W, arena);
  MultiplyMatrices({.rows = W, .columns = P, .depth = W, .lhs_lower = true}, {{inverse, W}},
                   {{k_to_q.output.data(), P}}, s_of_state, P, arena);

  MultiplyMatrices(triangles, {{p_to_c.inside.data(), W}}, {{s_of_input, W}}, window.inside.data(),
                   W, arena);
  MultiplyMatrices({.rows = W, .columns = P, .depth = W, .lhs_lower = true},
                   {{p_to_c.inside.data(), W}}, {{s_of_state, P}}, window.output.data(), P, arena);
  MultiplyMatrices({.rows = P, .columns = W, .depth = W, .rhs_lower = true},
                   {{p_to_c.input.data(), W}}, {{s_of_input, W}}, window.input.data(), W, arena);
  MultiplyMatrices({.rows = P, .columns = P, .depth = W}, {{p_to_c.input.data(), W}},
                   {{s_of_state, P}}, window.transition.data(), P, arena);
  Add(k_to_c.inside.data(), W * W, window.inside.data());
  Add(k_to_c.output.data(), W * P, window.output.data());
  Add(k_to_c.input.data(), P * W, window.input.data());
  for (int64_t n = 0; n < P; ++n) window.transition[n * P + n] += k_to_c.transition[n];
}

void DiagonalPlusRankOneStateSpace::Advance(int64_t t, int64_t columns, int64_t stride,
                                            const double* state, double* next, Arena& arena) const {
  const ArenaScope scope(arena);
  const int64_t N = factors_.states;
  const int64_t row = t * N;
  double* along = arena.Allocate(columns);
  std::fill_n(along, columns, 0.0);
  for (int64_t n = 0; n < N; ++n) {
    const double weight = factors_.q[row + n];
    for (int64_t j = 0; j < columns; ++j) along[j] += weight * state[n * stride + j];
  }
  for (int64_t n = 0; n < N; ++n) {
    const double gate = factors_.w[row + n];
    const double share = factors_.p[row + n];
    for (int64_t j = 0; j < columns; ++j) {
      next[n * stride + j] = gate * state[n * stride + j] + share * along[j];
    }
  }
}

}  // namespace ess::linalg
