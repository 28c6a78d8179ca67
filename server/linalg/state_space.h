// A linear recurrence of one head, as the recurrent routes read it: window by window.
//
//   h_t = A_t h_{t-1} + b_t u_t,   y_t = c_t . h_t  (post-read)  or  y_t = c_t . h_{t-1} (pre-read)
#pragma once

#include <cstdint>
#include <vector>

#include "server/linalg/tree_workspace.h"

namespace ess::linalg {

constexpr int64_t RoundUpToBlock(int64_t count) { return (count + kBlock - 1) / kBlock * kBlock; }

// Positions [first, first + width) between the states h_{first - 1} and h_{first + width - 1}.
// Post-read below; pre-read, row r of `output` and `inside` lacks the factor A_{first + r}.
// Products only, never quotients: gates of 0 are legal. P is N and W is the width, each rounded up
// to a multiple of 8; what is beyond N, beyond the width or beyond L is 0, and any finite number in
// `transition`.
struct StateWindow {
  // Sets the sizes and zeroes `inside`; the other numbers are any.
  void Resize(int64_t transition_size, int64_t padded_states, int64_t padded_width) {
    transition.resize(transition_size);
    output.resize(padded_width * padded_states);
    input.resize(padded_states * padded_width);
    inside.assign(padded_width * padded_width, 0.0);
  }

  // A_{last} ... A_{first} in the form of its StateSpace::transition_kind.
  std::vector<double> transition;
  std::vector<double> output;  // [W, P]: row r is c_{first+r} A_{first+r} ... A_{first}.
  std::vector<double> input;   // [P, W]: column j is A_{last} ... A_{first+j+1} b_{first+j}.
  // [W, W]: T[first + r, first + j] for j < r; 0 elsewhere.
  std::vector<double> inside;
  // FillWindow's own.
  Arena scratch;
  std::vector<StateWindow> parts;
};

// Rows [first, first + count) of a matrix of `columns` columns as [rows, padded], `fill` beyond
// them: in place where nothing has to be added, else in the arena.
const double* PaddedRows(const double* matrix, int64_t first, int64_t count, int64_t columns,
                         int64_t rows, int64_t padded, double fill, Arena& arena);

// What every A_t is, and so their products.
enum class TransitionKind {
  kDiagonal,  // [P]: the diagonal.
  kPairs,     // [P]: for states 2 s and 2 s + 1, x and y of the block [x, -y; y, x].
  kDense,     // [P, P].
};

// Immutable.
class StateSpace {
 public:
  virtual ~StateSpace() = default;

  virtual int64_t length() const = 0;  // L
  virtual int64_t states() const = 0;  // N, real; a complex state counts twice.
  virtual TransitionKind transition_kind() const = 0;

  // REQUIRES: 0 <= first < length(), width >= 1. Positions from L on have b = c = 0 and A = I.
  // Cost: about 6 W N (W + N) operations; with dense A_t that have no structure, 3 W N^3.
  virtual void FillWindow(int64_t first, int64_t width, StateWindow& window) const = 0;
};

}  // namespace ess::linalg
