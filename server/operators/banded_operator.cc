#include "server/operators/banded_operator.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "server/base/log.h"
#include "server/linalg/local_spectra.h"

namespace ess::operators {

BandedOperator::BandedOperator(const at::Tensor& band, const std::optional<at::Tensor>& sinks)
    : batch_shape_(BatchShape({{band, 2}, {sinks.value_or(band), 2}})),
      band_({band, 2}, batch_shape_),
      sinks_(sinks ? std::optional<HeadArray>(std::in_place, HeadTensor{*sinks, 2}, batch_shape_)
                   : std::nullopt) {
  ESS_CHECK(!sinks_ || sinks_->size(0) == length());
}

double BandedOperator::feature_epsilon() const {
  return std::max(band_.feature_epsilon(), sinks_ ? sinks_->feature_epsilon() : 0);
}

void BandedOperator::DenseHead(int64_t head, std::span<double> out) const {
  const int64_t L = length();
  const int64_t W = width();
  const int64_t S = sink_count();
  ESS_CHECK(static_cast<int64_t>(out.size()) == L * L);
  const double* band = band_.Real(head).data();
  const double* sinks = sinks_ ? sinks_->Real(head).data() : nullptr;
  std::fill(out.begin(), out.end(), 0.0);
  for (int64_t i = 0; i < L; ++i) {
    for (int64_t d = 0; d < std::min(W, i + 1); ++d) out[i * L + i - d] = band[i * W + d];
    for (int64_t s = 0; s < S && i - s >= W; ++s) out[i * L + s] = sinks[i * S + s];
  }
}

at::Tensor BandedOperator::Apply(const at::Tensor& u) const {
  const int64_t L = length();
  const int64_t W = width();
  const at::Tensor band = band_.AllHeads();  // [H, L, W]
  at::Tensor y = at::zeros_like(u);          // [H, L, C]
  for (int64_t d = 0; d < std::min(W, L); ++d) {
    // [H, L - d, 1] * [H, L - d, C]
    y.slice(1, d).add_(band.slice(1, d).select(2, d).unsqueeze(2) * u.slice(1, 0, L - d));
  }
  if (!sinks_) return y;
  const at::Tensor sinks = sinks_->AllHeads();  // [H, L, S]
  for (int64_t s = 0; s < sink_count() && s + W < L; ++s) {
    // [H, L - s - W, 1] * [H, 1, C]
    y.slice(1, s + W).add_(sinks.slice(1, s + W).select(2, s).unsqueeze(2) * u.slice(1, s, s + 1));
  }
  return y;
}

absl::Status BandedOperator::CheckFinite() const {
  return CheckAllFinite({{"band", &band_}, {"sinks", sinks_ ? &*sinks_ : nullptr}});
}

std::unique_ptr<linalg::BlockSpectra> BandedOperator::NativeSpectra(int64_t head) const {
  const std::span<const double> sinks = sinks_ ? sinks_->Real(head) : std::span<const double>();
  return std::make_unique<linalg::LocalSpectra>(band_.Real(head), length(), width(), sinks,
                                                sink_count());
}

}  // namespace ess::operators
