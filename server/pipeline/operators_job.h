// A validated request for the ESS of operators that a caller brings.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "server/ess/ess_engine.h"
#include "server/ess/measure.h"
#include "server/operators/operator_arguments.h"
#include "server/pipeline/reduction.h"

namespace ess {

struct OperatorsJob {
  std::string request_id;
  std::string class_name;  // "DenseOperator", ...
  bool read_before = false;
  std::vector<operators::ArgumentDeclaration> arguments;
  operators::OperatorShape shape;  // Of all operators together: what CheckDeclaration answers.
  std::vector<Measure> measures;   // At least one, valid, none twice.
  EssOptions options;
  Reduction reduction = Reduction::kNone;
  std::vector<int64_t> positions;    // Selected, ascending.
  double max_reference_work = 2e12;  // Of all operators together; see ReferenceWork.
};

// REQUIRES: the products are below 2^63.
int64_t ElementCount(const operators::ArgumentDeclaration& argument);
int64_t ByteCount(const operators::ArgumentDeclaration& argument);

}  // namespace ess
