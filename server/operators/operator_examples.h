// Random arguments of every operator class, for tests: float64, leading dimension `head_count`, the
// same for the same seed. States and widths are smaller than most lengths, so that bounds show.
#pragma once

#include <cstdint>

#include "server/operators/operator_arguments.h"

namespace ess::operators {

// Softmax maps.
OperatorArguments DenseExample(int64_t head_count, int64_t length, uint64_t seed);
// A gate vector per position, in (0, 1).
OperatorArguments DiagonalExample(int64_t head_count, int64_t length, uint64_t seed);
// Keys of length 1, beta in (0, 1), a little forgetting.
OperatorArguments DeltaExample(int64_t head_count, int64_t length, uint64_t seed);
// As RWKV-7: the rank-one part removes a share of one direction.
OperatorArguments DiagonalPlusRankOneExample(int64_t head_count, int64_t length, uint64_t seed);
// Transitions of norm about 0.9.
OperatorArguments GeneralExample(int64_t head_count, int64_t length, uint64_t seed);
// A decaying random filter over the whole length, with both gates.
OperatorArguments ConvolutionExample(int64_t head_count, int64_t length, uint64_t seed);
// A window of 5 and two sinks.
OperatorArguments BandedExample(int64_t head_count, int64_t length, uint64_t seed);
// Steps like those of a Mamba layer, A = -1 .. -N.
OperatorArguments SelectiveScanExample(int64_t head_count, int64_t length, uint64_t seed);

}  // namespace ess::operators
