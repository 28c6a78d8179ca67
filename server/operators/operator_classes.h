// The table of operator classes. The contract test walks it: a new class is its own file pair plus
// one line in operator_classes.cc, its arguments and an example of them.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "server/operators/operator_arguments.h"
#include "server/operators/sequence_operator.h"

namespace ess::operators {

struct OperatorClass {
  std::string_view name;
  std::span<const OperatorArgument> arguments;
  bool recurrence = false;  // Has a state, so `read_before` may be chosen.

  // Random arguments, float64, every optional one among them: the same seed gives the same. The
  // leading dimension of each is `head_count`.
  OperatorArguments (*example_arguments)(int64_t head_count, int64_t length, uint64_t seed);

  // REQUIRES: arguments that BuildOperator has checked.
  std::unique_ptr<SequenceOperator> (*build)(const OperatorArguments& arguments);

  // The operator of example_arguments.
  std::unique_ptr<SequenceOperator> make_example(int64_t head_count, int64_t length,
                                                 uint64_t seed) const;
};

std::span<const OperatorClass> AllOperatorClasses();

}  // namespace ess::operators
