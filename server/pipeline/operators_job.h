// A validated request for the ESS of operators that a caller brings.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "server/ess/ess_engine.h"
#include "server/ess/measure.h"
#include "server/pipeline/reduction.h"

namespace ess {

// One declared constructor argument: leading dimensions, then those of one operator.
struct OperatorArgument {
  std::string name;  // "T", "a", "alpha", ...
  c10::ScalarType dtype = c10::ScalarType::Double;
  std::vector<int64_t> batch_shape;
  std::vector<int64_t> shape;

  std::vector<int64_t> FullShape() const;
  int64_t BatchCount() const;
  int64_t ElementCount() const;
  int64_t ByteCount() const;
};

struct OperatorsJob {
  std::string request_id;
  std::string class_name;     // "DenseOperator", ...
  bool reads_before = false;  // y_t reads the state before it takes u_t.
  std::vector<OperatorArgument> arguments;
  std::vector<int64_t> batch_shape;  // The leading dimensions, broadcast.
  int64_t batch_count = 1;           // Operators: the product of batch_shape.
  int64_t length = 0;                // L
  std::vector<Measure> measures;     // At least one, valid, none twice.
  EssOptions options;
  Reduction reduction = Reduction::kNone;
  std::vector<int64_t> positions;  // Selected, ascending.
};

}  // namespace ess
