#include "server/models/distributions.h"

#include <ATen/ATen.h>

#include <cmath>

#include "server/base/serial_torch.h"
#include "server/models/random_fill.h"

namespace ess::models {
namespace {

double RootOfInputs(const at::Tensor& weight) {
  return std::sqrt(static_cast<double>(weight.numel() / weight.size(0)));
}

}  // namespace

Distribution Constant(double value) {
  return {.fill = [=](const RandomNumbers&, at::Tensor& weight) { weight.fill_(value); }};
}

Distribution Normal(double standard_deviation) {
  return {.fill = [=](const RandomNumbers& random, at::Tensor& weight) {
    FillNormal(random, weight);
    weight.mul_(standard_deviation);
  }};
}

Distribution NormalButOneRow(double standard_deviation, int64_t zero_row) {
  return {.fill = [=, normal = Normal(standard_deviation)](const RandomNumbers& random,
                                                           at::Tensor& weight) {
    normal.fill(random, weight);
    const int64_t rows = weight.size(0);
    if (zero_row >= -rows && zero_row < rows) weight.select(0, zero_row).zero_();
  }};
}

Distribution Uniform(double low, double high) {
  return {.fill = [=](const RandomNumbers& random, at::Tensor& weight) {
    FillUniform(random, weight);
    weight.mul_(high - low).add_(low);
  }};
}

Distribution UniformByInputs(double scale) {
  return {.fill = [=](const RandomNumbers& random, at::Tensor& weight) {
    const double bound = scale / RootOfInputs(weight);
    Uniform(-bound, bound).fill(random, weight);
  }};
}

Distribution XavierUniform(double gain) {
  return {.fill = [=](const RandomNumbers& random, at::Tensor& weight) {
    const double inputs = static_cast<double>(weight.numel() / weight.size(0));
    const double bound = gain * std::sqrt(6 / (inputs + static_cast<double>(weight.size(0))));
    Uniform(-bound, bound).fill(random, weight);
  }};
}

Distribution Orthogonal(double gain) {
  const auto fill = [=](const RandomNumbers& random, at::Tensor& weight) {
    FillNormal(random, weight);
    const bool wide = weight.size(0) < weight.size(1);
    const SerialTorch serial;
    auto [Q, R] = at::linalg_qr((wide ? weight.t() : weight).to(at::kDouble));
    // Without the signs the distribution would depend on how the factors are made.
    Q.mul_(R.diagonal().sign().mul_(gain));
    weight.copy_(wide ? Q.t() : Q);
  };
  // The weight, its factors and what LAPACK makes them in, in float64.
  return {.fill = fill, .scratch_bytes = 4 * static_cast<int64_t>(sizeof(double))};
}

Distribution ConstantByInputs(double scale) {
  return {.fill = [=](const RandomNumbers&, at::Tensor& weight) {
    weight.fill_(scale / RootOfInputs(weight));
  }};
}

Distribution Multiples(double step) {
  return {.fill = [=](const RandomNumbers&, at::Tensor& weight) {
    weight.copy_(at::arange(1, weight.size(-1) + 1, weight.options()).mul_(step));
  }};
}

Distribution LogOfCount() {
  return {.fill = [](const RandomNumbers&, at::Tensor& weight) {
    weight.copy_(at::arange(1, weight.size(-1) + 1, weight.options()).log_());
  }};
}

Distribution LogOfUniform(double low, double high) {
  return {.fill = [=](const RandomNumbers& random, at::Tensor& weight) {
    Uniform(low, high).fill(random, weight);
    weight.log_();
  }};
}

Distribution SoftplusInverseOfLogUniform(double low, double high, double floor) {
  return {.fill = [=](const RandomNumbers& random, at::Tensor& weight) {
    Uniform(std::log(low), std::log(high)).fill(random, weight);
    weight.exp_().clamp_min_(floor);
    weight.add_(weight.neg().expm1_().neg_().log_());
  }};
}

}  // namespace ess::models
