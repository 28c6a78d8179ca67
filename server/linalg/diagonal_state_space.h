// Recurrences whose transition is diagonal: linear attention, GLA, RetNet, Mamba-2; complex: S4D,
// LRU.
#pragma once

#include "server/linalg/state_space.h"

namespace ess::linalg {

// Arrays of one head, row-major; they must outlive the object. Complex numbers are pairs (re, im).
struct DiagonalFactors {
  int64_t length = 0;         // L
  int64_t states = 0;         // N, real or complex.
  bool scalar_gate = false;   // One gate for all states.
  bool reads_before = false;  // Pre-read.
  const double* a = nullptr;  // Gates [L, N], or [L] with scalar_gate.
  const double* b = nullptr;  // [L, N]
  const double* c = nullptr;  // [L, N]
};

// Rows of a, b and c of one window [W, P] (`a`: [W] with a scalar gate), zeros (gates: ones) beyond
// the end.
struct DiagonalRows {
  const double* a = nullptr;
  const double* b = nullptr;
  const double* c = nullptr;
};

class DiagonalStateSpace final : public StateSpace {
 public:
  explicit DiagonalStateSpace(const DiagonalFactors& factors) : factors_(factors) {}

  int64_t length() const override { return factors_.length; }
  int64_t states() const override { return factors_.states; }
  TransitionKind transition_kind() const override { return TransitionKind::kDiagonal; }
  // Cost: W^2 N + O(W N) operations.
  void FillWindow(int64_t first, int64_t width, StateWindow& window) const override;

 private:
  const DiagonalFactors factors_;
};

// T = Re(...): two real states for each complex one.
class ComplexDiagonalStateSpace final : public StateSpace {
 public:
  explicit ComplexDiagonalStateSpace(const DiagonalFactors& factors) : factors_(factors) {}

  int64_t length() const override { return factors_.length; }
  int64_t states() const override { return 2 * factors_.states; }
  TransitionKind transition_kind() const override { return TransitionKind::kPairs; }
  // Cost: as DiagonalStateSpace with twice the states.
  void FillWindow(int64_t first, int64_t width, StateWindow& window) const override;

 private:
  const DiagonalFactors factors_;
};

}  // namespace ess::linalg
