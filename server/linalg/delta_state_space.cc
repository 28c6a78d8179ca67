#include "server/linalg/delta_state_space.h"

#include <algorithm>

#include "server/base/log.h"
#include "server/linalg/matrix_product.h"

namespace ess::linalg {
namespace {

// One window: W positions, P states, both padded.
struct DeltaWindow {
  int64_t width;
  int64_t states;
  bool reads_before;
  const double* alpha;  // [W]
  const double* beta;   // [W]
  const double* keys;   // [W, P]
  const double* reads;  // [W, P]

  ProductSize Size(int64_t rows, int64_t columns, int64_t depth) const {
    return {.rows = rows, .columns = columns, .depth = depth};
  }
};

// Turns the products k_r . k_j and c_r . k_j into the matrices of the triangular system and of its
// readout, by the decay between j and r: overlap[r, j] = beta_r alpha_{j+1} ... alpha_r k_r . k_j
// for j < r, and seen[r, j] = alpha_{j+1} ... alpha_r c_r . k_j for j <= r (pre-read: up to
// alpha_{r-1}, for j < r). `decay` [W] ends up as the decay from each position to the last,
// `total` [W] as that from the window's start to each.
void ApplyDecay(const DeltaWindow& window, double* overlap, double* seen, double* decay,
                double* total) {
  std::fill_n(decay, window.width, 0.0);
  double product = 1;
  for (int64_t r = 0; r < window.width; ++r) {
    double* overlap_row = overlap + r * window.width;
    double* seen_row = seen + r * window.width;
    const double alpha = window.alpha[r];
    const double weight = window.beta[r] * alpha;
    const double read = window.reads_before ? 1 : alpha;
    for (int64_t j = 0; j < r; ++j) {
      overlap_row[j] *= weight * decay[j];
      seen_row[j] *= read * decay[j];
      decay[j] *= alpha;
    }
    if (window.reads_before) seen_row[r] = 0;
    std::fill(seen_row + r + 1, seen_row + RoundUpToBlock(r + 1), 0.0);
    decay[r] = 1;
    total[r] = product *= alpha;
  }
}

void ScaleRows(const double* from, const double* scale, int64_t rows, int64_t columns, double* to) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t c = 0; c < columns; ++c)
      to[row * columns + c] = scale[row] * from[row * columns + c];
  }
}

void Fill(const DeltaWindow& in, Arena& arena, StateWindow& out) {
  const int64_t W = in.width;
  const int64_t P = in.states;
  double* overlap = arena.Allocate(W * W);
  double* seen = arena.Allocate(W * W);
  double* decay = arena.Allocate(W);
  double* total = arena.Allocate(W);
  ProductSize pairs = in.Size(W, W, P);
  pairs.lower_only = true;
  MultiplyMatrices(pairs, {{in.keys, P}}, {{in.keys, P}, true}, overlap, W, arena);
  MultiplyMatrices(pairs, {{in.reads, P}}, {{in.keys, P}, true}, seen, W, arena);
  ApplyDecay(in, overlap, seen, decay, total);

  // corrections: v = corrections (u - total k . h before the window), times beta.
  double* corrections = arena.Allocate(W * W);
  std::fill_n(corrections, W * W, 0.0);
  InvertUnitLower(W, overlap, corrections);
  for (int64_t r = 0; r < W; ++r) {
    for (int64_t j = 0; j <= r; ++j) corrections[r * W + j] *= in.beta[j];
  }
  const ProductSize triangles = {.rows = W,
                                 .columns = W,
                                 .depth = W,
                                 .lower_only = true,
                                 .lhs_lower = true,
                                 .rhs_lower = true};
  MultiplyMatrices(triangles, {{seen, W}}, {{corrections, W}}, out.inside.data(), W, arena);

  double* decayed_keys = arena.Allocate(W * P);
  double* total_keys = arena.Allocate(W * P);
  ScaleRows(in.keys, decay, W, P, decayed_keys);
  ScaleRows(in.keys, total, W, P, total_keys);
  ProductSize inputs = in.Size(P, W, W);
  inputs.rhs_lower = true;
  MultiplyMatrices(inputs, {{decayed_keys, P}, true}, {{corrections, W}}, out.input.data(), W,
                   arena);
  ProductSize outputs = in.Size(W, P, W);
  outputs.lhs_lower = true;
  MultiplyMatrices(outputs, {{out.inside.data(), W}}, {{total_keys, P}}, out.output.data(), P,
                   arena);
  for (int64_t r = 0; r < W; ++r) {
    const double before = r == 0 ? 1 : total[r - 1];
    const double reach = in.reads_before ? before : total[r];
    for (int64_t n = 0; n < P; ++n) {
      double& entry = out.output[r * P + n];
      entry = reach * in.reads[r * P + n] - entry;
    }
    std::fill(out.inside.begin() + r * W + r, out.inside.begin() + (r + 1) * W, 0.0);
  }
  MultiplyMatrices(in.Size(P, P, W), {{out.input.data(), W}}, {{total_keys, P}},
                   out.transition.data(), P, arena);
  for (double& entry : out.transition) entry = -entry;
  for (int64_t n = 0; n < P; ++n) out.transition[n * P + n] += total[W - 1];
}

}  // namespace

DeltaStateSpace::DeltaStateSpace(const DeltaFactors& factors)
    : SteppedStateSpace({.length = factors.length,
                         .states = factors.states,
                         .reads_before = factors.reads_before,
                         .b = factors.k,
                         .c = factors.c}),
      factors_(factors) {}

void DeltaStateSpace::FillWindow(int64_t first, int64_t width, StateWindow& window) const {
  const int64_t N = factors_.states;
  const int64_t P = RoundUpToBlock(N);
  const int64_t W = RoundUpToBlock(width);
  const int64_t count = std::min(width, factors_.length - first);
  ESS_CHECK(first >= 0 && width >= 1 && count >= 1);
  if (!(LargestGateProduct(factors_.alpha + first, count, 1) <= kLargestSafeGrowth)) {
    SteppedStateSpace::FillWindow(first, width, window);
    return;
  }
  window.Resize(P * P, P, W);
  Arena& arena = window.scratch;
  const int64_t longest = std::max(P, W);
  arena.Reserve(4 * W * P + 3 * W * W + 4 * W +
                MultiplyScratch({.rows = longest, .columns = longest, .depth = longest}));
  const ArenaScope scope(arena);
  Fill({.width = W,
        .states = P,
        .reads_before = factors_.reads_before,
        .alpha = PaddedRows(factors_.alpha, first, count, 1, W, 1, 1, arena),
        .beta = PaddedRows(factors_.beta, first, count, 1, W, 1, 0, arena),
        .keys = PaddedRows(factors_.k, first, count, N, W, P, 0, arena),
        .reads = PaddedRows(factors_.c, first, count, N, W, P, 0, arena)},
       arena, window);
}

void DeltaStateSpace::Advance(int64_t t, int64_t columns, int64_t stride, const double* state,
                              double* next, Arena& arena) const {
  const ArenaScope scope(arena);
  const int64_t N = factors_.states;
  const double* key = factors_.k + t * N;
  double* stored = arena.Allocate(columns);
  std::fill_n(stored, columns, 0.0);
  for (int64_t n = 0; n < N; ++n) {
    for (int64_t j = 0; j < columns; ++j) stored[j] += key[n] * state[n * stride + j];
  }
  const double alpha = factors_.alpha[t];
  for (int64_t n = 0; n < N; ++n) {
    const double share = factors_.beta[t] * key[n];
    for (int64_t j = 0; j < columns; ++j) {
      next[n * stride + j] = alpha * (state[n * stride + j] - share * stored[j]);
    }
  }
}

}  // namespace ess::linalg
