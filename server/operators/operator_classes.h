// The table of operator classes. The contract test walks it: a new class is its own file pair plus
// one line in operator_classes.cc.
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
  // A random operator of this class, float64: the same seed gives the same operator.
  std::unique_ptr<SequenceOperator> (*make_example)(int64_t head_count, int64_t length,
                                                    uint64_t seed);
};

std::span<const OperatorClass> AllOperatorClasses();

}  // namespace ess::operators
