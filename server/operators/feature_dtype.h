// Rounding of the floating dtypes that features come in.
#pragma once

#include <c10/core/ScalarType.h>

namespace ess::operators {

// The value that SequenceOperator::feature_epsilon promises: 2^-52 for float64, 2^-23 for float32,
// 2^-10 for float16, 2^-7 for bfloat16; of a complex dtype, that of its parts.
// REQUIRES: one of these.
double FeatureEpsilon(c10::ScalarType dtype);

}  // namespace ess::operators
