// The operators of the benchmark tables: one of each kind that models have.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "server/operators/sequence_operator.h"

namespace ess::benchmarks {

struct OperatorCase {
  std::unique_ptr<operators::SequenceOperator> op;
  // Heads that one thread computes together, and heads that two threads share: 1 and 2, or 1 and 2
  // groups of channels, or all heads of a real model's layer samples.
  int64_t one_thread_heads = 1;
  int64_t two_thread_heads = 2;
  int64_t compared_heads = 1;  // Raced with the rivals and compared with SVD.
  bool thorough = false;       // Compared at many positions at every length.
};

struct OperatorFamily {
  std::string name;
  int64_t states;  // What the memory of a native route is proportional to, with L; 0: dense.
  std::function<OperatorCase(int64_t length)> make;
};

// Attention; recurrences as GLA, Mamba-2, S6 and DeltaNet have them when training begins; a Hyena
// filter; attention in a window. All but attention are scaled so that the largest ||H_i||_F
// of the first head is 10, which makes one tolerance mean about the same for all of them.
std::vector<OperatorFamily> OperatorFamilies();

// One of them. REQUIRES: the name exists.
OperatorCase MakeOperatorCase(std::string_view name, int64_t length);

// A layer of Mamba: scans of 16 states, scaled so that the first one's norm is as above.
std::unique_ptr<operators::SequenceOperator> MakeSelectiveScan(int64_t length, int64_t channels);

// T of one head, row-major [L, L].
std::vector<double> DenseMatrix(const operators::SequenceOperator& op, int64_t head);

// A dense operator of `heads` equal heads. `matrix` outlives it.
std::unique_ptr<operators::SequenceOperator> DenseFromMatrix(const std::vector<double>& matrix,
                                                             int64_t length, int64_t heads);

}  // namespace ess::benchmarks
