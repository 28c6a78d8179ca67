#include "server/operators/convolution.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "server/base/log.h"
#include "server/linalg/local_spectra.h"
#include "server/linalg/short_convolution_spectra.h"

namespace ess::operators {
namespace {

std::vector<int64_t> BatchOf(const at::Tensor& h, const std::optional<at::Tensor>& gate_out,
                             const std::optional<at::Tensor>& gate_in) {
  // An absent gate has the leading dimensions of `h`: it changes nothing.
  return BatchShape({{h, 1}, {gate_out.value_or(h), 1}, {gate_in.value_or(h), 1}});
}

std::optional<HeadArray> Gate(const std::optional<at::Tensor>& gate,
                              const std::vector<int64_t>& batch_shape) {
  if (!gate.has_value()) return std::nullopt;
  return HeadArray({*gate, 1}, batch_shape);
}

int64_t LastTap(const HeadArray& h) {
  int64_t taps = 0;
  for (int64_t head = 0; head < h.head_count(); ++head) {
    const std::span<const double> filter = h.Real(head);
    int64_t count = filter.size();
    while (count > taps && filter[count - 1] == 0) --count;
    taps = std::max(taps, count);
  }
  return taps;
}

}  // namespace

Convolution::Convolution(const at::Tensor& h, const std::optional<at::Tensor>& gate_out,
                         const std::optional<at::Tensor>& gate_in)
    : batch_shape_(BatchOf(h, gate_out, gate_in)),
      h_({h, 1}, batch_shape_),
      gate_out_(Gate(gate_out, batch_shape_)),
      gate_in_(Gate(gate_in, batch_shape_)),
      length_(gate_out_  ? gate_out_->size(0)
              : gate_in_ ? gate_in_->size(0)
                         : h_.size(0)),
      taps_(LastTap(h_)) {
  ESS_CHECK(h_.size(0) <= length_);
  ESS_CHECK(!gate_in_ || gate_in_->size(0) == length_);
}

StateSize Convolution::state_size() const {
  if (taps_ == length_) return StateSize::Growing();
  return StateSize::GrowingUpTo(std::max<int64_t>(taps_ - 1, 0));
}

double Convolution::feature_epsilon() const {
  return std::max({h_.feature_epsilon(), gate_out_ ? gate_out_->feature_epsilon() : 0,
                   gate_in_ ? gate_in_->feature_epsilon() : 0});
}

void Convolution::DenseHead(int64_t head, std::span<double> out) const {
  const int64_t L = length();
  ESS_CHECK(static_cast<int64_t>(out.size()) == L * L);
  const std::span<const double> h = h_.Real(head);
  const double* gate_out = gate_out_ ? gate_out_->Real(head).data() : nullptr;
  const double* gate_in = gate_in_ ? gate_in_->Real(head).data() : nullptr;
  std::fill(out.begin(), out.end(), 0.0);
  for (int64_t i = 0; i < L; ++i) {
    for (int64_t j = std::max<int64_t>(0, i - taps_ + 1); j <= i; ++j) {
      out[i * L + j] = (gate_out ? gate_out[i] : 1) * h[i - j] * (gate_in ? gate_in[j] : 1);
    }
  }
}

at::Tensor Convolution::Apply(const at::Tensor& u) const {
  const at::Tensor filter = h_.AllHeads();                                        // [H, K]
  const at::Tensor input = gate_in_ ? u * gate_in_->AllHeads().unsqueeze(2) : u;  // [H, L, C]
  at::Tensor y = at::zeros_like(u);                                               // [H, L, C]
  for (int64_t lag = 0; lag < taps_; ++lag) {
    const at::Tensor tap = filter.select(1, lag).view({-1, 1, 1});  // [H, 1, 1]
    y.slice(1, lag).add_(tap * input.slice(1, 0, length_ - lag));
  }
  return gate_out_ ? y * gate_out_->AllHeads().unsqueeze(2) : y;
}

absl::Status Convolution::CheckFinite() const {
  return CheckAllFinite({{"h", &h_},
                         {"gate_out", gate_out_ ? &*gate_out_ : nullptr},
                         {"gate_in", gate_in_ ? &*gate_in_ : nullptr}});
}

linalg::Symmetry Convolution::symmetry() const {
  return toeplitz() ? linalg::Symmetry::kToeplitz : linalg::Symmetry::kNone;
}

std::span<const double> Convolution::InvariantHead(int64_t head) const {
  return toeplitz() ? h_.Real(head) : std::span<const double>();
}

std::unique_ptr<linalg::BlockSpectra> Convolution::NativeSpectra(int64_t head) const {
  const auto taps = h_.Real(head).first(std::max<int64_t>(taps_, 1));
  if (toeplitz()) return std::make_unique<linalg::ShortConvolutionSpectra>(taps, length_);
  const auto gate = [head](const std::optional<HeadArray>& values) {
    return values ? values->Real(head) : std::span<const double>();
  };
  const std::vector<double> band =
      linalg::GatedConvolutionBand(taps, length_, gate(gate_out_), gate(gate_in_));
  return std::make_unique<linalg::LocalSpectra>(band, length_, std::ssize(taps));
}

}  // namespace ess::operators
