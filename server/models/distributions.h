// What a weight may be drawn from at the start of training.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "server/base/random_numbers.h"

namespace ess::models {

struct Distribution {
  // Fills a new weight, contiguous float32 on the CPU, whose shape is the checkpoint's.
  std::function<void(const RandomNumbers& random, at::Tensor& weight)> fill;
  // Memory that this takes beside the weight, for each of its numbers.
  int64_t scratch_bytes = 0;
};

Distribution Constant(double value);

Distribution Normal(double standard_deviation);

// Normal, with zeros in one row; a negative row counts from the end, and one outside the tensor
// has no effect.
Distribution NormalButOneRow(double standard_deviation, int64_t zero_row);

Distribution Uniform(double low, double high);

// In [-b, b) with b = scale / sqrt(inputs), where [outputs, inputs...] is the weight's shape: what
// torch.nn.Linear and Conv1d start from with a scale of 1.
Distribution UniformByInputs(double scale);

// In [-b, b) with b = gain sqrt(6 / (inputs + outputs)): torch.nn.init.xavier_uniform_.
Distribution XavierUniform(double gain);

// Orthonormal rows or columns, whichever are fewer, times `gain`: torch.nn.init.orthogonal_.
// Factored in float64 by one thread, so that how many there are changes nothing.
// Cost: 4 m n^2 operations, n the smaller side.
Distribution Orthogonal(double gain);

// scale / sqrt(inputs), of the same shape.
Distribution ConstantByInputs(double scale);

// step, 2 step, ... along the last axis.
Distribution Multiples(double step);

// log(1), log(2), ... along the last axis: "A_log" of S4D-real (Gu et al. 2022, arXiv:2206.11893).
Distribution LogOfCount();

// The logarithm of what is uniform in [low, high): "A_log" of Mamba-2 (Dao and Gu 2024,
// arXiv:2405.21060).
Distribution LogOfUniform(double low, double high);

// The bias whose softplus is log-uniform in [low, high), but not below `floor`: Mamba's time steps
// (Gu and Dao 2023, arXiv:2312.00752).
Distribution SoftplusInverseOfLogUniform(double low, double high, double floor);

}  // namespace ess::models
