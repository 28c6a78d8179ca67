// The frequencies of each kind of scaling. Everything is float32 in the order of the public
// implementation, because an angle is frequency times position: rounding grows with the position.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "server/models/layers/rotary_scaling.h"

namespace ess::models {
namespace {

using Kind = RotaryScaling::Kind;

// base^(2 m / dim) for m < count: [count].
at::Tensor PositionPeriods(double base, int64_t count, int64_t dim) {
  const at::Tensor exponents =
      at::arange(0, 2 * count, 2, at::kLong).to(at::kFloat).div(static_cast<double>(dim));
  return at::pow(at::Scalar(base), exponents);
}

at::Tensor PlainFrequencies(const RotaryScaling& scaling) {
  return PositionPeriods(scaling.theta, scaling.head_dim / 2, scaling.head_dim).reciprocal();
}

// Neural-tangent-kernel scaling: a base that grows with the length of the prompt.
at::Tensor DynamicFrequencies(const RotaryScaling& scaling, int64_t length) {
  if (length <= scaling.max_positions) return PlainFrequencies(scaling);
  const double dim = static_cast<double>(scaling.head_dim);
  const double stretch =
      scaling.factor * static_cast<double>(length) / static_cast<double>(scaling.max_positions) -
      (scaling.factor - 1);
  RotaryScaling stretched = scaling;
  stretched.theta = scaling.theta * std::pow(stretch, dim / (dim - 2));
  return PlainFrequencies(stretched);
}

// Source: Peng et al. 2023 (arXiv:2309.00071): long wavelengths are interpolated, short ones kept,
// with a linear ramp between.
at::Tensor YarnFrequencies(const RotaryScaling& scaling) {
  const double dim = static_cast<double>(scaling.head_dim);
  // The dimension whose wavelength turns `rotations` times within the original length.
  auto dimension_at = [&](double rotations) {
    return dim *
           std::log(static_cast<double>(scaling.original_max_positions) /
                    (rotations * 2 * std::numbers::pi)) /
           (2 * std::log(scaling.theta));
  };
  double low = dimension_at(scaling.beta_fast);
  double high = dimension_at(scaling.beta_slow);
  if (scaling.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dim - 1);
  if (low == high) high += 0.001;
  const int64_t pairs = scaling.head_dim / 2;
  const at::Tensor kept =
      at::rsub(at::arange(pairs, at::kFloat).sub(low).div(high - low).clamp(0, 1), 1);
  const at::Tensor periods = PositionPeriods(scaling.theta, pairs, scaling.head_dim);
  const at::Tensor interpolated = periods.mul(scaling.factor).reciprocal();
  return interpolated * at::rsub(kept, 1) + periods.reciprocal() * kept;
}

// Source: Ding et al. 2024 (arXiv:2402.13753): one factor per pair, chosen by the prompt's length.
at::Tensor LongRopeFrequencies(const RotaryScaling& scaling, int64_t length) {
  const std::vector<double>& factors =
      length > scaling.original_max_positions ? scaling.long_factor : scaling.short_factor;
  const at::Tensor extension = at::tensor(factors, at::kDouble).to(at::kFloat);
  const at::Tensor periods = PositionPeriods(scaling.theta, scaling.head_dim / 2, scaling.head_dim);
  return (extension * periods).reciprocal();
}

// Llama 3.1: wavelengths beyond the original context are divided, short ones kept, the band between
// is blended.
at::Tensor Llama3Frequencies(const RotaryScaling& scaling) {
  const double original = static_cast<double>(scaling.original_max_positions);
  const double low = scaling.low_frequency_factor;
  const double high = scaling.high_frequency_factor;
  const at::Tensor plain = PlainFrequencies(scaling);
  const at::Tensor wavelength = plain.reciprocal().mul(2 * std::numbers::pi);
  const at::Tensor is_long = wavelength > original / low;
  const at::Tensor divided = at::where(is_long, plain / scaling.factor, plain);
  const at::Tensor blend = wavelength.reciprocal().mul(original).sub(low).div(high - low);
  const at::Tensor smoothed = at::rsub(blend, 1) * divided / scaling.factor + blend * divided;
  const at::Tensor is_medium =
      at::logical_not(wavelength < original / high).logical_and(at::logical_not(is_long));
  return at::where(is_medium, smoothed, divided);
}

// The first pairs rotate with the exponents of the whole head; the rest stand still.
at::Tensor ProportionalFrequencies(const RotaryScaling& scaling) {
  const int64_t pairs = scaling.head_dim / 2;
  const int64_t rotated = static_cast<int64_t>(
      std::floor(scaling.rotated_fraction * static_cast<double>(scaling.head_dim) / 2));
  at::Tensor frequencies = at::zeros({pairs}, at::kFloat);
  frequencies.narrow(0, 0, rotated)
      .copy_(PositionPeriods(scaling.theta, rotated, scaling.head_dim).reciprocal());
  return frequencies.div(scaling.factor);
}

}  // namespace

at::Tensor InverseFrequencies(const RotaryScaling& scaling, int64_t length) {
  switch (scaling.kind) {
    case Kind::kDefault:
      return PlainFrequencies(scaling);
    case Kind::kLinear:
      return PlainFrequencies(scaling).div(scaling.factor);
    case Kind::kDynamic:
      return DynamicFrequencies(scaling, length);
    case Kind::kYarn:
      return YarnFrequencies(scaling);
    case Kind::kLongRope:
      return LongRopeFrequencies(scaling, length);
    case Kind::kLlama3:
      return Llama3Frequencies(scaling);
    case Kind::kProportional:
      return ProportionalFrequencies(scaling);
  }
  return PlainFrequencies(scaling);
}

}  // namespace ess::models
