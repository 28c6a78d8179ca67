// Operators from named arguments: what a caller may bring, and every check of it.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/operators/sequence_operator.h"

namespace ess::operators {

// Operators of one request: far more than any, small enough for tables with an entry per head.
inline constexpr int64_t kMaxHeadCount = int64_t{1} << 24;
inline constexpr size_t kMaxDimensions = 16;

// One argument of a class. Its shape is [..., axes]: leading dimensions, which broadcast over the
// arguments, and then one axis per letter of `axes`; equal letters are equal sizes.
//
//   L  positions             N  states            W  width of a band      S  sink columns
//   G  one gate per state (N) or one for all (1)
//   K  taps: at most L; where no other argument has an L, it is L
struct OperatorArgument {
  std::string_view name;
  std::string_view axes;
  bool optional = false;
  bool complex = false;  // complex64 and complex128 are allowed, too.
};

// What is known of an argument before its values arrive.
struct ArgumentDeclaration {
  std::string name;
  c10::ScalarType dtype = c10::ScalarType::Double;
  std::vector<int64_t> shape;
};

struct OperatorShape {
  std::vector<int64_t> batch_shape;  // The broadcast leading dimensions.
  int64_t head_count = 1;            // H, their product.
  int64_t length = 0;                // L
};

struct OperatorArguments {
  std::map<std::string, at::Tensor> tensors;  // Unexpanded, on any device.
  bool read_before = false;                   // Recurrences: y_t = c_t . h_{t-1}.
};

struct BuiltOperator {
  // Heads are the batch in row-major order.
  std::unique_ptr<SequenceOperator> op;
  std::vector<int64_t> batch_shape;
};

// Checks everything that shows before the values.
//
// Errors: kInvalidArgument  an unknown class; an unknown, missing or repeated argument; a dtype
//                           other than float32 and float64 (complex64 and complex128 where
//                           allowed); too few axes, more than kMaxDimensions, an empty one,
//                           sizes that disagree; leading
//                           dimensions that do not broadcast or make more than kMaxHeadCount heads;
//                           `read_before` of a class that is no recurrence.
absl::StatusOr<OperatorShape> CheckDeclaration(std::string_view class_name,
                                               std::span<const ArgumentDeclaration> arguments,
                                               bool read_before);

// Checks the arguments and makes the operator.
//
// Errors: kInvalidArgument    as CheckDeclaration; an entry that is not finite; a DenseOperator
// with
//                             an entry above the diagonal that is not 0: names argument and index.
//         kResourceExhausted  out of memory.
// Cost:   one pass over the values, and a float64 copy of those that are not.
absl::StatusOr<BuiltOperator> BuildOperator(std::string_view class_name,
                                            const OperatorArguments& arguments);

}  // namespace ess::operators
