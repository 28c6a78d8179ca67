// Recurrences whose transitions are no diagonals, step by step: the delta rule, a diagonal plus
// rank one, any matrix, complex diagonals as pairs of real states.
#pragma once

#include <complex>
#include <cstdint>
#include <vector>

#include "server/linalg/state_space.h"

namespace ess::linalg {

// What every recurrence below has. Arrays of one head are row-major and must outlive the object.
struct SteppedFactors {
  int64_t length = 0;  // L
  int64_t states = 0;  // N, real.
  bool reads_before = false;
};

// The window of any such recurrence, from one step at a time. Cost: W (N + W) times what a step
// costs for each column.
class SteppedStateSpace : public StateSpace {
 public:
  int64_t length() const final { return factors_.length; }
  int64_t states() const final { return factors_.states; }
  TransitionKind transition_kind() const final { return TransitionKind::kDense; }
  void FillWindow(int64_t first, int64_t width, StateWindow& window) const final;

 protected:
  explicit SteppedStateSpace(const SteppedFactors& factors) : factors_(factors) {}

  // X <- A_t X for the first `count` columns of X, [N, stride] row-major.
  virtual void Advance(int64_t t, int64_t count, int64_t stride, double* x) const = 0;
  virtual void WriteInput(int64_t t, double* b) const = 0;   // b_t [N]
  virtual void WriteOutput(int64_t t, double* c) const = 0;  // c_t [N]

 private:
  const SteppedFactors factors_;
};

// A recurrence with real c_t, and b_t of its own or made from other factors.
class RealSteppedStateSpace : public SteppedStateSpace {
 protected:
  // `b`, `c`: [L, N].
  RealSteppedStateSpace(const SteppedFactors& factors, const double* b, const double* c)
      : SteppedStateSpace(factors), b_(b), c_(c) {}

  void WriteInput(int64_t t, double* b) const override;
  void WriteOutput(int64_t t, double* c) const final;

 private:
  const double* const b_;
  const double* const c_;
};

// A_t = alpha_t (I - beta_t k_t k_t^T), b_t = beta_t k_t. alpha, beta [L]; k, c [L, N].
class DeltaStateSpace final : public RealSteppedStateSpace {
 public:
  DeltaStateSpace(const SteppedFactors& factors, const double* alpha, const double* beta,
                  const double* k, const double* c)
      : RealSteppedStateSpace(factors, k, c), alpha_(alpha), beta_(beta), k_(k) {}

 private:
  void Advance(int64_t t, int64_t count, int64_t stride, double* x) const override;
  void WriteInput(int64_t t, double* b) const override;

  const double* const alpha_;
  const double* const beta_;
  const double* const k_;
};

// A_t = diag(w_t) + p_t q_t^T, b_t = k_t. All [L, N].
class DiagonalPlusRankOneStateSpace final : public RealSteppedStateSpace {
 public:
  DiagonalPlusRankOneStateSpace(const SteppedFactors& factors, const double* w, const double* p,
                                const double* q, const double* k, const double* c)
      : RealSteppedStateSpace(factors, k, c), w_(w), p_(p), q_(q) {}

 private:
  void Advance(int64_t t, int64_t count, int64_t stride, double* x) const override;

  const double* const w_;
  const double* const p_;
  const double* const q_;
};

// Any A_t. a [L, N, N]; b, c [L, N].
class GeneralStateSpace final : public RealSteppedStateSpace {
 public:
  GeneralStateSpace(const SteppedFactors& factors, const double* a, const double* b,
                    const double* c)
      : RealSteppedStateSpace(factors, b, c), a_(a) {}

 private:
  void Advance(int64_t t, int64_t count, int64_t stride, double* x) const override;

  const double* const a_;
};

// T = Re(...) of a complex diagonal recurrence with N / 2 complex states; complex state s is the
// real states 2 s, its real part, and 2 s + 1, its imaginary part. a [L, N / 2], or [L] with one
// gate for all states; b, c [L, N / 2].
class ComplexDiagonalStateSpace final : public SteppedStateSpace {
 public:
  using Complex = std::complex<double>;
  ComplexDiagonalStateSpace(const SteppedFactors& factors, bool scalar_gate, const Complex* a,
                            const Complex* b, const Complex* c)
      : SteppedStateSpace(factors), scalar_gate_(scalar_gate), a_(a), b_(b), c_(c) {}

 private:
  void Advance(int64_t t, int64_t count, int64_t stride, double* x) const override;
  void WriteInput(int64_t t, double* b) const override;
  void WriteOutput(int64_t t, double* c) const override;

  const bool scalar_gate_;
  const Complex* const a_;
  const Complex* const b_;
  const Complex* const c_;
};

}  // namespace ess::linalg
