// Recurrences whose windows are made one step at a time: transitions without any structure, and the
// structured ones where products of whole windows would not be safe.
#pragma once

#include <cstdint>

#include "server/linalg/state_space.h"

namespace ess::linalg {

// What every recurrence below has. Arrays of one head are row-major and must outlive the object.
struct SteppedFactors {
  int64_t length = 0;  // L
  int64_t states = 0;  // N
  bool reads_before = false;
  const double* b = nullptr;  // [L, N]; times InputWeight.
  const double* c = nullptr;  // [L, N]
};

class SteppedStateSpace : public StateSpace {
 public:
  int64_t length() const final { return factors_.length; }
  int64_t states() const final { return factors_.states; }
  TransitionKind transition_kind() const final { return TransitionKind::kDense; }
  // Cost: W (N + W / 2) times what a step costs for each column.
  void FillWindow(int64_t first, int64_t width, StateWindow& window) const override;

 protected:
  explicit SteppedStateSpace(const SteppedFactors& factors) : factors_(factors) {}

  // next = A_t state for the first `columns` columns, a multiple of 8, of [P, stride] matrices
  // whose rows from N on are 0.
  virtual void Advance(int64_t t, int64_t columns, int64_t stride, const double* state,
                       double* next, Arena& arena) const = 0;
  // Doubles of scratch that Advance needs.
  virtual int64_t AdvanceScratch(int64_t columns) const { return columns; }
  virtual double InputWeight(int64_t t) const { return 1; }

 private:
  const SteppedFactors factors_;
};

// Any A_t. a [L, N, N].
class GeneralStateSpace final : public SteppedStateSpace {
 public:
  GeneralStateSpace(const SteppedFactors& factors, const double* a)
      : SteppedStateSpace(factors), a_(a) {}

 private:
  // Cost: 2 N^2 operations for each column.
  void Advance(int64_t t, int64_t columns, int64_t stride, const double* state, double* next,
               Arena& arena) const override;
  int64_t AdvanceScratch(int64_t columns) const override;

  const double* const a_;
};

// An upper bound of the product of any gates of consecutive steps: `gates` is [steps, per_step].
double LargestGateProduct(const double* gates, int64_t steps, int64_t per_step);

// Windows made as a whole add up what gates alone do, and take away again what the rest of the
// transition removes of it. Where gates grow beyond this, that would lose digits.
inline constexpr double kLargestSafeGrowth = 16;

}  // namespace ess::linalg
