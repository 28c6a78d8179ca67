// A linear recurrence of one head, as the recurrent routes read it: window by window.
//
//   h_t = A_t h_{t-1} + b_t u_t,   y_t = c_t . h_t  (post-read)  or  y_t = c_t . h_{t-1} (pre-read)
#pragma once

#include <cstdint>
#include <vector>

namespace ess::linalg {

// Positions [first, first + width) between the states h_{first - 1} and h_{first + width - 1}.
// Post-read below; pre-read, row r of `output` and `inside` lacks the factor A_{first + r}.
// Products only, never quotients: gates of 0 are legal.
struct StateWindow {
  // A_{last} ... A_{first}: its diagonal [N] when the state space is diagonal, else [N, N].
  std::vector<double> transition;
  std::vector<double> output;  // [width, N]: row r is c_{first+r} A_{first+r} ... A_{first}.
  std::vector<double> input;   // [N, width]: column j is A_{last} ... A_{first+j+1} b_{first+j}.
  // [width, width]: T[first + r, first + j] for j < r; 0 elsewhere.
  std::vector<double> inside;
};

// Immutable.
class StateSpace {
 public:
  virtual ~StateSpace() = default;

  virtual int64_t length() const = 0;  // L
  virtual int64_t states() const = 0;  // N, real; a complex state counts twice.
  // Whether every A_t is diagonal.
  virtual bool diagonal() const = 0;

  // Fills the window. Positions from L on have b = c = 0 and A = I.
  // Cost: about 6 width N (width + N) operations; with dense A_t, width N^3 at worst.
  virtual void FillWindow(int64_t first, int64_t width, StateWindow& window) const = 0;
};

}  // namespace ess::linalg
