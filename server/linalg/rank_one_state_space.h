// Diagonal plus rank one: RWKV-7 and other rules that correct the state along one direction.
//
//   A_t = diag(w_t) + p_t q_t^T,   b_t = k_t
#pragma once

#include "server/linalg/diagonal_state_space.h"
#include "server/linalg/stepped_state_space.h"

namespace ess::linalg {

// Arrays [L, N] of one head, row-major; they must outlive the object.
struct RankOneFactors {
  int64_t length = 0;         // L
  int64_t states = 0;         // N
  bool reads_before = false;  // Pre-read.
  const double* w = nullptr;
  const double* p = nullptr;
  const double* q = nullptr;
  const double* k = nullptr;
  const double* c = nullptr;
};

// With s_t = q_t . h_{t-1} as a second input beside u_t, the recurrence is diagonal: inputs k and
// p, outputs c and q. s itself is the solution of one triangular system in a window.
class DiagonalPlusRankOneStateSpace final : public SteppedStateSpace {
 public:
  explicit DiagonalPlusRankOneStateSpace(const RankOneFactors& factors);

  // Cost: 2 W N^2 + 10 W^2 N + 2 W^3 operations; step by step where products of w grow.
  void FillWindow(int64_t first, int64_t width, StateWindow& window) const override;

 private:
  void Advance(int64_t t, int64_t columns, int64_t stride, const double* state, double* next,
               Arena& arena) const override;

  const RankOneFactors factors_;
  const DiagonalStateSpace k_to_c_;
  const DiagonalStateSpace p_to_c_;
  const DiagonalStateSpace k_to_q_;
  const DiagonalStateSpace p_to_q_;
};

}  // namespace ess::linalg
