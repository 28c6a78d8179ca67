#include "server/models/distributions.h"

#include <ATen/ATen.h>

#include <cmath>

#include "server/models/random_fill.h"

namespace ess::models {
namespace {

double RootOfInputs(const at::Tensor& weight) {
  return std::sqrt(static_cast<double>(weight.numel() / weight.size(0)));
}

}  // namespace

Distribution Constant(double value) {
  return [=](const RandomNumbers&, at::Tensor& weight) { weight.fill_(value); };
}

Distribution Normal(double standard_deviation) {
  return [=](const RandomNumbers& random, at::Tensor& weight) {
    FillNormal(random, weight);
    weight.mul_(standard_deviation);
  };
}

Distribution NormalButOneRow(double standard_deviation, int64_t zero_row) {
  return [=, normal = Normal(standard_deviation)](const RandomNumbers& random, at::Tensor& weight) {
    normal(random, weight);
    const int64_t rows = weight.size(0);
    if (zero_row >= -rows && zero_row < rows) weight.select(0, zero_row).zero_();
  };
}

Distribution Uniform(double low, double high) {
  return [=](const RandomNumbers& random, at::Tensor& weight) {
    FillUniform(random, weight);
    weight.mul_(high - low).add_(low);
  };
}

Distribution UniformByInputs(double scale) {
  return [=](const RandomNumbers& random, at::Tensor& weight) {
    const double bound = scale / RootOfInputs(weight);
    Uniform(-bound, bound)(random, weight);
  };
}

Distribution XavierUniform(double gain) {
  return [=](const RandomNumbers& random, at::Tensor& weight) {
    const double inputs = static_cast<double>(weight.numel() / weight.size(0));
    const double bound = gain * std::sqrt(6 / (inputs + static_cast<double>(weight.size(0))));
    Uniform(-bound, bound)(random, weight);
  };
}

Distribution Orthogonal(double gain) {
  return [=](const RandomNumbers& random, at::Tensor& weight) {
    FillNormal(random, weight);
    const bool wide = weight.size(0) < weight.size(1);
    const auto [Q, R] = at::linalg_qr(wide ? weight.t() : weight);
    // Without the signs the distribution would depend on how the factors are made.
    const at::Tensor orthogonal = Q.mul(R.diagonal().sign()).mul(gain);
    weight.copy_(wide ? orthogonal.t() : orthogonal);
  };
}

Distribution ConstantByInputs(double scale) {
  return
      [=](const RandomNumbers&, at::Tensor& weight) { weight.fill_(scale / RootOfInputs(weight)); };
}

Distribution Multiples(double step) {
  return [=](const RandomNumbers&, at::Tensor& weight) {
    weight.copy_(at::arange(1, weight.size(-1) + 1, weight.options()).mul_(step));
  };
}

Distribution LogOfCount() {
  return [](const RandomNumbers&, at::Tensor& weight) {
    weight.copy_(at::arange(1, weight.size(-1) + 1, weight.options()).log_());
  };
}

Distribution LogOfUniform(double low, double high) {
  return [=](const RandomNumbers& random, at::Tensor& weight) {
    Uniform(low, high)(random, weight);
    weight.log_();
  };
}

Distribution SoftplusInverseOfLogUniform(double low, double high, double floor) {
  return [=](const RandomNumbers& random, at::Tensor& weight) {
    Uniform(std::log(low), std::log(high))(random, weight);
    weight.exp_().clamp_min_(floor);
    weight.add_(weight.neg().expm1_().neg_().log_());
  };
}

}  // namespace ess::models
