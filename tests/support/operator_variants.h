// Every operator class in every way that its arguments allow: what the contract tests walk.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "server/operators/operator_classes.h"

namespace ess::testing {

struct OperatorVariant {
  std::string name;  // "DiagonalRecurrence", "DiagonalRecurrence_Complex", ...
  std::string class_name;
  // The class's example, changed; the same seed gives the same.
  std::function<operators::OperatorArguments(int64_t head_count, int64_t length, uint64_t seed)>
      arguments;

  // Through BuildOperator.
  std::unique_ptr<operators::SequenceOperator> Make(int64_t head_count, int64_t length,
                                                    uint64_t seed) const;

  friend std::ostream& operator<<(std::ostream& out, const OperatorVariant& variant) {
    return out << variant.name;
  }
};

// For each class of the table: the example; without its optional arguments; with every second
// argument shared by the heads, and the others; read before; with one gate per position; complex.
std::vector<OperatorVariant> AllOperatorVariants();

}  // namespace ess::testing
