// Recurrences whose transitions are no diagonals, step by step: the delta rule, a diagonal plus
// rank one, any matrix, complex diagonals as pairs of real states.
#pragma once

#include <complex>
#include <cstdint>
#include <vector>

#include "server/linalg/state_space.h"

namespace ess::linalg {

// The window of any such recurrence, from one step at a time. Cost: W (N + W) times what a step
// costs for each column.
class SteppedStateSpace : public StateSpace {
 public:
  TransitionKind transition_kind() const override { return TransitionKind::kDense; }
  void FillWindow(int64_t first, int64_t width, StateWindow& window) const override;

  virtual bool reads_before() const = 0;
  // X <- A_t X for the first `count` columns of X, [N, stride] row-major.
  virtual void Advance(int64_t t, int64_t count, int64_t stride, double* x) const = 0;
  virtual void WriteInput(int64_t t, double* b) const = 0;   // b_t [N]
  virtual void WriteOutput(int64_t t, double* c) const = 0;  // c_t [N]
};

// Arrays of one head below are row-major and must outlive the object.

// A_t = alpha_t (I - beta_t k_t k_t^T), b_t = beta_t k_t.
class DeltaStateSpace final : public SteppedStateSpace {
 public:
  struct Factors {
    int64_t length = 0;
    int64_t states = 0;
    bool reads_before = false;
    const double* alpha = nullptr;  // [L]
    const double* beta = nullptr;   // [L]
    const double* k = nullptr;      // [L, N]
    const double* c = nullptr;      // [L, N]
  };
  explicit DeltaStateSpace(const Factors& factors) : factors_(factors) {}

  int64_t length() const override { return factors_.length; }
  int64_t states() const override { return factors_.states; }
  bool reads_before() const override { return factors_.reads_before; }
  void Advance(int64_t t, int64_t count, int64_t stride, double* x) const override;
  void WriteInput(int64_t t, double* b) const override;
  void WriteOutput(int64_t t, double* c) const override;

 private:
  const Factors factors_;
};

// A_t = diag(w_t) + p_t q_t^T, b_t = k_t.
class DiagonalPlusRankOneStateSpace final : public SteppedStateSpace {
 public:
  struct Factors {
    int64_t length = 0;
    int64_t states = 0;
    bool reads_before = false;
    const double* w = nullptr;  // All [L, N].
    const double* p = nullptr;
    const double* q = nullptr;
    const double* k = nullptr;
    const double* c = nullptr;
  };
  explicit DiagonalPlusRankOneStateSpace(const Factors& factors) : factors_(factors) {}

  int64_t length() const override { return factors_.length; }
  int64_t states() const override { return factors_.states; }
  bool reads_before() const override { return factors_.reads_before; }
  void Advance(int64_t t, int64_t count, int64_t stride, double* x) const override;
  void WriteInput(int64_t t, double* b) const override;
  void WriteOutput(int64_t t, double* c) const override;

 private:
  const Factors factors_;
};

class GeneralStateSpace final : public SteppedStateSpace {
 public:
  struct Factors {
    int64_t length = 0;
    int64_t states = 0;
    bool reads_before = false;
    const double* a = nullptr;  // [L, N, N]
    const double* b = nullptr;  // [L, N]
    const double* c = nullptr;  // [L, N]
  };
  explicit GeneralStateSpace(const Factors& factors) : factors_(factors) {}

  int64_t length() const override { return factors_.length; }
  int64_t states() const override { return factors_.states; }
  bool reads_before() const override { return factors_.reads_before; }
  void Advance(int64_t t, int64_t count, int64_t stride, double* x) const override;
  void WriteInput(int64_t t, double* b) const override;
  void WriteOutput(int64_t t, double* c) const override;

 private:
  const Factors factors_;
};

// T = Re(...) of a complex diagonal recurrence; state s is the real states 2 s, its real part, and
// 2 s + 1, its imaginary part.
class ComplexDiagonalStateSpace final : public SteppedStateSpace {
 public:
  struct Factors {
    int64_t length = 0;
    int64_t states = 0;        // Complex ones.
    bool scalar_gate = false;  // One gate for all states.
    bool reads_before = false;
    const std::complex<double>* a = nullptr;  // [L, states], or [L] with scalar_gate.
    const std::complex<double>* b = nullptr;  // [L, states]
    const std::complex<double>* c = nullptr;  // [L, states]
  };
  explicit ComplexDiagonalStateSpace(const Factors& factors) : factors_(factors) {}

  int64_t length() const override { return factors_.length; }
  int64_t states() const override { return 2 * factors_.states; }
  bool reads_before() const override { return factors_.reads_before; }
  void Advance(int64_t t, int64_t count, int64_t stride, double* x) const override;
  void WriteInput(int64_t t, double* b) const override;
  void WriteOutput(int64_t t, double* c) const override;

 private:
  const Factors factors_;
};

}  // namespace ess::linalg
