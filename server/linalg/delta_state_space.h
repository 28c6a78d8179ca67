// The delta rule: DeltaNet, Gated DeltaNet.
//
//   A_t = alpha_t (I - beta_t k_t k_t^T),   b_t = beta_t k_t
#pragma once

#include "server/linalg/stepped_state_space.h"

namespace ess::linalg {

// Arrays of one head, row-major; they must outlive the object.
struct DeltaFactors {
  int64_t length = 0;             // L
  int64_t states = 0;             // N
  bool reads_before = false;      // Pre-read.
  const double* alpha = nullptr;  // [L]
  const double* beta = nullptr;   // [L]
  const double* k = nullptr;      // [L, N]
  const double* c = nullptr;      // [L, N]
};

// A window's product of transitions is one low-rank correction of a multiple of I (the WY form):
// with v_t = u_t - alpha_t k_t . h_{t-1}, the state is a sum of decayed beta_j k_j v_j, and v is
// the solution of one triangular system. Source: Yang et al. 2024, arXiv:2406.06484.
class DeltaStateSpace final : public SteppedStateSpace {
 public:
  explicit DeltaStateSpace(const DeltaFactors& factors);

  // Cost: 2 W N^2 + 5 W^2 N + W^3 operations; step by step where products of alpha grow.
  void FillWindow(int64_t first, int64_t width, StateWindow& window) const override;

 private:
  void Advance(int64_t t, int64_t columns, int64_t stride, const double* state, double* next,
               Arena& arena) const override;
  double InputWeight(int64_t t) const override { return factors_.beta[t]; }

  const DeltaFactors factors_;
};

}  // namespace ess::linalg
