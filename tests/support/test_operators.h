// Causal matrices to test and race on: the recipes of docs/ess.md, "Test
// operators", and the degenerate set.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace ess::testing {

// A named family of matrices T, row-major [length, length], zero above the diagonal. The same
// length gives the same numbers on every machine with the same standard library.
struct TestOperator {
  std::string name;
  std::function<std::vector<double>(int64_t length)> make;
};

// "attention_g1", "attention_g8" (sharper), "attention_sink", "attention_topic", "gla_64",
// "hyena", "s6".
std::vector<TestOperator> RealisticOperators();

// "zero", "shift" (all sigma 1), "uniform" attention, "copy", "hard" attention,
// "zero_row_and_column", "underflowing_gates", "reset" (two segments that share nothing).
std::vector<TestOperator> DegenerateOperators();

// One of the above by name.
std::vector<double> MakeTestOperator(const std::string& name, int64_t length);

}  // namespace ess::testing
